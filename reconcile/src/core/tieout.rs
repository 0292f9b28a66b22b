//! A vendor's bill beside our lines: by account, subscription and item, with both totals tied out.

use std::collections::BTreeMap;

use schemas::ledger::Line;

/// What is compared: account, subscription (or blank), item, currency.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TieKey {
    pub smart_account: String,
    pub virtual_account: String,
    pub subscription_id: String,
    pub item: String,
    pub currency: String,
}

/// Quantity in millionths, amount in ten-thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub quantity: i128,
    pub amount: i128,
}

/// How the two sides compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    Equal,
    OursOnly,
    TheirsOnly,
    /// Another quantity, at the same price a unit.
    QuantityDiffers,
    /// The same quantity, at another price.
    PriceDiffers,
    BothDiffer,
}

impl Tie {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Tie::Equal => "equal",
            Tie::OursOnly => "ours-only",
            Tie::TheirsOnly => "theirs-only",
            Tie::QuantityDiffers => "quantity-differs",
            Tie::PriceDiffers => "price-differs",
            Tie::BothDiffer => "both-differ",
        }
    }
}

/// One key on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tied {
    pub key: TieKey,
    pub ours: Option<Sums>,
    pub theirs: Option<Sums>,
    pub tie: Tie,
}

/// Which parts of a key the vendor's file names: those that it lacks are summed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grain {
    pub virtual_account: bool,
    pub subscription: bool,
    pub currency: bool,
}

impl Grain {
    /// A key without what the grain lacks.
    #[must_use]
    pub fn of(self, mut key: TieKey) -> TieKey {
        if !self.virtual_account {
            key.virtual_account.clear();
        }
        if !self.subscription {
            key.subscription_id.clear();
        }
        if !self.currency {
            key.currency.clear();
        }
        key
    }
}

/// Sums of our lines.
#[must_use]
pub fn ours(lines: &[Line], grain: Grain) -> BTreeMap<TieKey, Sums> {
    let mut sums: BTreeMap<TieKey, Sums> = BTreeMap::new();
    for line in lines {
        let key = grain.of(TieKey {
            smart_account: line.key.smart_account.clone(),
            virtual_account: line.key.virtual_account.clone(),
            subscription_id: line.key.subscription_id.clone(),
            item: line.key.item.clone(),
            currency: line.currency.clone(),
        });
        let sum = sums.entry(key).or_default();
        sum.quantity += line.quantity;
        sum.amount += line.amount;
    }
    sums
}

/// Compares two sides; the rows' amounts come to both totals.
#[must_use]
pub fn tie_out(ours: &BTreeMap<TieKey, Sums>, theirs: &BTreeMap<TieKey, Sums>) -> Vec<Tied> {
    let mut keys: Vec<&TieKey> = ours.keys().chain(theirs.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
        .map(|key| {
            let (ours, theirs) = (ours.get(key).copied(), theirs.get(key).copied());
            let tie = match (ours, theirs) {
                (Some(_), None) => Tie::OursOnly,
                (None, _) => Tie::TheirsOnly,
                (Some(a), Some(b)) => compare(a, b),
            };
            Tied { key: key.clone(), ours, theirs, tie }
        })
        .collect()
}

fn compare(a: Sums, b: Sums) -> Tie {
    if a == b {
        return Tie::Equal;
    }
    if a.quantity == b.quantity {
        return Tie::PriceDiffers;
    }
    // a.amount / a.quantity = b.amount / b.quantity, without dividing. What does not fit is not the same.
    let (left, right) = (a.amount.checked_mul(b.quantity), b.amount.checked_mul(a.quantity));
    let same_price = left.is_some() && left == right;
    if same_price { Tie::QuantityDiffers } else { Tie::BothDiffer }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(text: &str) -> Option<Sums> {
        let (quantity, amount) = text.split_once(" for ")?;
        Some(Sums { quantity: quantity.parse().ok()?, amount: amount.parse().ok()? })
    }

    #[test]
    fn two_sides_compare() {
        for (a, b, expected) in [
            ("10 for 50", "10 for 50", "equal"),
            ("10 for 50", "-", "ours-only"),
            ("-", "10 for 50", "theirs-only"),
            ("10 for 50", "12 for 60", "quantity-differs"),
            ("10 for 50", "10 for 49", "price-differs"),
            ("10 for 50", "12 for 59", "both-differ"),
            ("0 for 0", "12 for 59", "quantity-differs"),
            ("0 for 0", "0 for 0", "equal"),
        ] {
            let key = TieKey {
                smart_account: "a".to_owned(),
                virtual_account: "b".to_owned(),
                subscription_id: String::new(),
                item: "t".to_owned(),
                currency: "USD".to_owned(),
            };
            let side = |text| sums(text).map(|sums| (key.clone(), sums)).into_iter().collect();
            let tied = tie_out(&side(a), &side(b));
            assert_eq!(tied.len(), 1);
            assert_eq!(tied[0].tie.as_str(), expected, "{a}, {b}");
        }
    }
}
