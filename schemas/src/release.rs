//! IOS XE releases as releases: parsed, ordered, and told apart by train.

use std::fmt;
use std::str::FromStr;

/// A release of IOS XE: `17.3.2`, `17.09.02`, `17.9.1a`, `16.10.1a`.
///
/// Numbers are numbers (`17.09.02` is `17.9.2`), and a rebuild follows what it rebuilds (`17.9.1` comes
/// before `17.9.1a`, and that before `17.9.2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Release {
    pub train: Train,
    pub maintenance: u16,
    /// Of a rebuild its letters, at most three; zeros where there are none.
    rebuild: [u8; 3],
}

/// What maintenance releases of one kind have in common: `17.3`, `17.6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Train {
    pub major: u16,
    pub minor: u16,
}

impl Train {
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Train {
        Train { major, minor }
    }
}

impl Release {
    #[must_use]
    pub const fn new(major: u16, minor: u16, maintenance: u16) -> Release {
        Release { train: Train::new(major, minor), maintenance, rebuild: [0; 3] }
    }

    /// The rebuild of a release that has one letter.
    #[must_use]
    pub const fn rebuilt(self, letter: char) -> Release {
        Release { rebuild: [letter as u8, 0, 0], ..self }
    }
}

impl FromStr for Release {
    type Err = String;

    /// Two or three numbers with dots between, and up to three letters at the end. Releases of other
    /// systems (NX-OS: `10.2(3)I9(1)`) are none.
    fn from_str(text: &str) -> Result<Release, String> {
        let misfit = || format!("'{}' is no release of IOS XE", text.escape_debug());
        let text = text.trim();
        let end = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let letters = text[end.len()..].to_ascii_lowercase();
        let mut rebuild = [0; 3];
        rebuild.get_mut(..letters.len()).ok_or_else(misfit)?.copy_from_slice(letters.as_bytes());
        let mut numbers = [0u16; 3];
        let mut count = 0;
        for part in end.split('.') {
            let is_number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            let number = part.parse().ok().filter(|_| is_number).ok_or_else(misfit)?;
            *numbers.get_mut(count).ok_or_else(misfit)? = number;
            count += 1;
        }
        if count < 2 || (count == 2 && !letters.is_empty()) {
            return Err(misfit());
        }
        Ok(Release { rebuild, ..Release::new(numbers[0], numbers[1], numbers[2]) })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.train.major, self.train.minor, self.maintenance)?;
        self.rebuild.iter().filter(|b| **b != 0).try_for_each(|b| write!(f, "{}", char::from(*b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn release(text: &str) -> Release {
        text.parse().unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn releases_are_read_and_ordered() {
        let in_order = [
            "16.9.8", "16.10.1", "16.10.1a", "17.3.1", "17.3.1a", "17.3.2", "17.03.03", "17.3.6",
            "17.3.10", "17.4.1", "17.9.1", "17.9.1a", "17.9.1b", "17.09.02", "17.10.1a",
            "17.11.1a", "17.12.04", "18.1.1",
        ];
        for pair in in_order.windows(2) {
            assert!(release(pair[0]) < release(pair[1]), "{} < {}", pair[0], pair[1]);
        }
        assert_eq!(release("17.09.02"), release("17.9.2"));
        assert_eq!(release("17.09.02").to_string(), "17.9.2");
        assert_eq!(release("17.5"), release("17.5.0"));
        assert_ne!(release("17.3.6").train, release("17.6.3").train);
    }

    #[test]
    fn what_is_no_release_is_refused() {
        for text in [
            "",
            "17",
            "17.",
            ".3.2",
            "17.3.2.1",
            "10.2(3)I9(1)",
            "17.x.1",
            "17.3.2abcd",
            "17.-3.2",
            "17.3a",
            "99999999.1.1",
            "+17.3.2",
        ] {
            assert!(text.parse::<Release>().is_err(), "{text}");
        }
    }

    proptest! {
        /// The order is that of the numbers, whatever zeros stand before them, and reading what is written
        /// gives the same release.
        #[test]
        fn order_is_that_of_the_numbers(
            a in (0u16..40, 0u16..40, 0u16..40, prop::option::of(0u8..26)),
            b in (0u16..40, 0u16..40, 0u16..40, prop::option::of(0u8..26)),
            zeros in 0usize..3,
        ) {
            let text = |(major, minor, maintenance, letter): (u16, u16, u16, Option<u8>), zeros: usize| {
                let letter = letter.map_or(String::new(), |l| char::from(b'a' + l).to_string());
                format!("{major}.{}{minor}.{}{maintenance}{letter}", "0".repeat(zeros), "0".repeat(zeros))
            };
            let (first, second) = (release(&text(a, zeros)), release(&text(b, 0)));
            prop_assert_eq!(first.cmp(&second), a.cmp(&b));
            prop_assert_eq!(release(&first.to_string()), first);
        }
    }
}
