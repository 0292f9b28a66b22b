//! Exact decimals of fixed scale, and the one rounding (contract 3): half to even.
//!
//! A quantity is an `i128` of millionths, an amount an `i128` of ten-thousandths of the currency's
//! unit (the finest minor unit of ISO 4217). Both are what an Arrow `Decimal128(38, s)` holds.

/// Decimal places of a quantity.
pub const QUANTITY_SCALE: u8 = 6;
/// Decimal places that an amount is held with; shown are those of its currency.
pub const AMOUNT_SCALE: u8 = 4;

/// Divides, rounding half to even. `None` for a divisor of zero.
#[must_use]
pub fn divide_half_even(numerator: i128, denominator: i128) -> Option<i128> {
    let quotient = numerator.checked_div_euclid(denominator)?;
    let remainder = numerator.checked_rem_euclid(denominator)?;
    // Euclid: 0 <= remainder < |denominator|, so the exact value is quotient + remainder/|d| in the
    // direction of the divisor's sign.
    let step = if denominator > 0 { 1 } else { -1 };
    let half = remainder.checked_mul(2)?.cmp(&denominator.checked_abs()?);
    Some(match half {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Greater => quotient + step,
        std::cmp::Ordering::Equal => quotient + step * (quotient & 1).abs(),
    })
}

/// Writes a fixed-scale decimal with all its places: `(1234500, 6)` is `1.234500`.
#[must_use]
pub fn decimal_text(value: i128, scale: u8) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let unit = 10u128.pow(u32::from(scale));
    let (whole, fraction) = (value.unsigned_abs() / unit, value.unsigned_abs() % unit);
    if scale == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction:0width$}", width = usize::from(scale))
    }
}

/// Writes an amount with the places of its currency (ISO 4217).
#[must_use]
pub fn amount_text(amount: i128, minor_digits: u8) -> String {
    let scale = minor_digits.min(AMOUNT_SCALE);
    decimal_text(amount / 10i128.pow(u32::from(AMOUNT_SCALE - scale)), scale)
}

/// Writes an amount with the places of its currency, by its code; of one that ISO 4217 does not know, with
/// all that are held.
#[must_use]
pub fn money_text(amount: i128, currency: &str) -> String {
    amount_text(amount, minor_digits(currency).unwrap_or(AMOUNT_SCALE))
}

/// The number of decimal places of a currency's minor unit, or `None` if ISO 4217 does not know it.
#[must_use]
pub fn minor_digits(currency: &str) -> Option<u8> {
    iso_currency::Currency::from_code(currency)
        .map(|c| u8::try_from(c.exponent().unwrap_or(0)).unwrap_or(0))
}

/// False of codes that ISO 4217 has without a minor unit: metals, bond units, testing.
#[must_use]
pub fn has_minor_unit(currency: &str) -> bool {
    iso_currency::Currency::from_code(currency).is_some_and(|c| c.exponent().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_half_to_even() {
        for (n, d, expected) in [
            (5, 2, 2),
            (7, 2, 4),
            (-5, 2, -2),
            (-7, 2, -4),
            (6, 4, 2),
            (10, 4, 2),
            (11, 4, 3),
            (5, -2, -2),
            (7, -2, -4),
            (1, 3, 0),
            (2, 3, 1),
            (-1, 3, 0),
            (-2, 3, -1),
            (0, 9, 0),
        ] {
            assert_eq!(divide_half_even(n, d), Some(expected), "{n}/{d}");
        }
        assert_eq!(divide_half_even(1, 0), None);
        assert_eq!(divide_half_even(i128::MIN, -1), None);
    }

    #[test]
    fn writes_every_place() {
        assert_eq!(decimal_text(1_234_500, 6), "1.234500");
        assert_eq!(decimal_text(-5, 2), "-0.05");
        assert_eq!(decimal_text(7, 0), "7");
        assert_eq!(amount_text(123_400, 2), "12.34");
        assert_eq!(amount_text(-1_230_000, 0), "-123");
        assert_eq!(amount_text(12_345, 3), "1.234");
    }

    #[test]
    fn minor_units_are_those_of_iso_4217() {
        for (code, digits) in
            [("USD", 2), ("EUR", 2), ("JPY", 0), ("BHD", 3), ("CLF", 4), ("NZD", 2), ("INR", 2)]
        {
            assert_eq!(minor_digits(code), Some(digits), "{code}");
        }
        assert_eq!(minor_digits("XXQ"), None);
        assert_eq!(minor_digits("usd"), None);
    }
}
