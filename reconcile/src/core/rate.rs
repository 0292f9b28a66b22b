//! From a quantity to an amount (contract 3.8), exact until the one rounding.

use num_bigint::BigInt;
use rust_decimal::Decimal;
use schemas::book::Price;
use schemas::ledger::TierMode;
use schemas::quantity::{AMOUNT_SCALE, QUANTITY_SCALE, minor_digits};

/// Decimal places of a product of a quantity (6) and a price (12).
const PRODUCT_SCALE: u32 = 18;
const PRICE_SCALE: u32 = 12;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    #[error("the price of plan {plan} for {item} cannot be applied: {why}")]
    Price { plan: String, item: String, why: &'static str },
    #[error("the amount for {item} under plan {plan} does not fit a ledger line")]
    TooLarge { plan: String, item: String },
}

/// The amount for a quantity (in millionths), in ten-thousandths of the currency's unit, rounded
/// half to even to the currency's minor unit (ISO 4217).
///
/// # Errors
/// If the price is not one that the book lets in, or the amount is beyond any currency.
pub fn amount(price: &Price, quantity: i128) -> Result<i128, RateError> {
    let wrong = |why| RateError::Price { plan: price.plan.clone(), item: price.item.clone(), why };
    let exact = exact_amount(price, quantity)
        .ok_or_else(|| wrong("its tiers or places are not those of a price"))?;
    let digits = minor_digits(&price.currency).ok_or_else(|| wrong("its currency is not known"))?;
    let minor = round_half_even(&exact, PRODUCT_SCALE - u32::from(digits));
    let scaled = minor * BigInt::from(10).pow(u32::from(AMOUNT_SCALE.saturating_sub(digits)));
    i128::try_from(scaled)
        .ok()
        .filter(|a| a.unsigned_abs() < 10u128.pow(38))
        .ok_or_else(|| RateError::TooLarge { plan: price.plan.clone(), item: price.item.clone() })
}

/// A part of a quantity that one tier prices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierPart {
    /// What the unit price is multiplied by, in millionths: the part of the quantity, or whole packages.
    pub units: i128,
    pub unit_price: Decimal,
    /// `units` times `unit_price`, with 18 decimal places.
    pub exact: BigInt,
}

/// The amount with 18 decimal places.
fn exact_amount(price: &Price, quantity: i128) -> Option<BigInt> {
    Some(tier_parts(price, quantity)?.iter().map(|part| &part.exact).sum())
}

/// What each tier prices of a quantity; the exact amount is the sum. `None` if the price's tiers or places
/// are not those of a price.
#[must_use]
pub fn tier_parts(price: &Price, quantity: i128) -> Option<Vec<TierPart>> {
    let part = |units: i128, unit_price: Decimal| {
        let exact = BigInt::from(units) * scaled(unit_price, PRICE_SCALE)?;
        Some(TierPart { units, unit_price, exact })
    };
    match price.tier_mode {
        TierMode::Flat => Some(vec![part(quantity, price.tiers.first()?.unit_price)?]),
        TierMode::Graduated => {
            let mut parts = Vec::new();
            let mut lower = 0;
            for tier in &price.tiers {
                let upper = match tier.up_to {
                    Some(bound) => scaled(bound, u32::from(QUANTITY_SCALE))?.min(quantity),
                    None => quantity,
                };
                if upper > lower {
                    parts.push(part(upper - lower, tier.unit_price)?);
                    lower = upper;
                }
            }
            Some(parts)
        }
        TierMode::Volume => {
            for tier in &price.tiers {
                // A tier holds (previous bound, up_to].
                let holds = match tier.up_to {
                    Some(bound) => quantity <= scaled(bound, u32::from(QUANTITY_SCALE))?,
                    None => true,
                };
                if holds {
                    return Some(vec![part(quantity, tier.unit_price)?]);
                }
            }
            None
        }
        TierMode::Package => {
            let size = scaled(price.package_size?, u32::from(QUANTITY_SCALE))?;
            let whole = quantity.checked_div(size)?;
            let packages = whole + i128::from(quantity % size != 0);
            let units = packages.checked_mul(10i128.pow(u32::from(QUANTITY_SCALE)))?;
            Some(vec![part(units, price.tiers.first()?.unit_price)?])
        }
    }
}

/// A decimal as an integer of the given scale, if it has no more places.
fn scaled(value: Decimal, scale: u32) -> Option<i128> {
    let value = value.normalize();
    let factor = 10i128.checked_pow(scale.checked_sub(value.scale())?)?;
    value.mantissa().checked_mul(factor)
}

/// Drops decimal places, rounding half to even.
fn round_half_even(value: &BigInt, places: u32) -> BigInt {
    let divisor = BigInt::from(10).pow(places);
    let quotient = value / &divisor;
    let remainder = value - &quotient * &divisor;
    let twice = BigInt::from(remainder.magnitude() * 2u32);
    let is_odd = (&quotient % 2) != BigInt::ZERO;
    let up = match twice.cmp(&divisor) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => is_odd,
        std::cmp::Ordering::Greater => true,
    };
    match (up, value.sign()) {
        (false, _) => quotient,
        (true, num_bigint::Sign::Minus) => quotient - 1,
        (true, _) => quotient + 1,
    }
}
