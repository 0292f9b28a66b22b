//! Claims of usage by PI group and item, in little memory: each name is held once, a report takes 64
//! bytes and a claim half as many.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use schemas::book::Span;
use schemas::merkle::Hash;
use schemas::udi::Udi;

use super::coverage::Gap;
use super::timeline::{Claim, ReportFacts};

/// Number of a PI, a text, or the like, among its kind.
pub type Number = u32;

/// The names that facts of reports refer to by number.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pis: Vec<Udi>,
    pi_numbers: HashMap<Vec<u8>, Number>,
    texts: Vec<String>,
    text_numbers: HashMap<String, Number>,
    /// Room to put a PI's key together in.
    key: Vec<u8>,
}

impl Names {
    /// The number of a PI, and whether it is new.
    ///
    /// # Panics
    /// At 2^32 names: the bound on claims is met long before.
    pub fn pi(&mut self, pid: &str, serial: &str) -> (Number, bool) {
        self.key.clear();
        self.key.extend_from_slice(pid.as_bytes());
        // No text of JSON or CSV that is valid UTF-8 has this byte.
        self.key.push(0xff);
        self.key.extend_from_slice(serial.as_bytes());
        if let Some(&number) = self.pi_numbers.get(&self.key) {
            return (number, false);
        }
        let number = Number::try_from(self.pis.len()).unwrap_or_else(|_| unreachable!("bounded"));
        self.pis.push(Udi::new(pid, serial));
        self.pi_numbers.insert(self.key.clone(), number);
        (number, true)
    }

    /// The number of a tag, a subscription id, or a part of an account.
    ///
    /// # Panics
    /// As [`Names::pi`].
    pub fn text(&mut self, text: &str) -> Number {
        if let Some(&number) = self.text_numbers.get(text) {
            return number;
        }
        let number = Number::try_from(self.texts.len()).unwrap_or_else(|_| unreachable!("bounded"));
        self.texts.push(text.to_owned());
        self.text_numbers.insert(text.to_owned(), number);
        number
    }

    #[must_use]
    pub fn pi_of(&self, number: Number) -> &Udi {
        &self.pis[number as usize]
    }

    #[must_use]
    pub fn text_of(&self, number: Number) -> &str {
        &self.texts[number as usize]
    }
}

/// A PI group: several PIs that reports name together, or one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    Several(u64),
    Alone(Number),
}

/// A part of all groups, where the claims of all at once are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub number: u64,
    pub of: u64,
}

impl Part {
    /// True if a group belongs to this part; whoever asks, the answer is the same.
    #[must_use]
    pub fn holds(self, pi: &Udi, several: Option<u64>) -> bool {
        let mut hasher = DefaultHasher::new();
        match several {
            Some(number) => number.hash(&mut hasher),
            None => pi.hash(&mut hasher),
        }
        hasher.finish() % self.of == self.number
    }
}

/// Claims under collection.
#[derive(Debug, Default)]
pub struct Claims {
    pub names: Names,
    pub facts: Vec<ReportFacts>,
    by_group: HashMap<(Group, Number), Vec<Claim>>,
}

impl Claims {
    /// Adds what one report claims for an item.
    pub fn add(
        &mut self,
        group: Group,
        item: Number,
        facts: ReportFacts,
        claims: impl Iterator<Item = Claim>,
    ) {
        let report = self.facts.len();
        self.facts.push(facts);
        let held = self.by_group.entry((group, item)).or_default();
        let before = held.len();
        held.extend(claims.map(|claim| Claim { report, ..claim }));
        if held.len() == before {
            self.facts.pop();
        }
    }

    /// Adds all of another collection.
    pub fn merge(&mut self, other: Claims) {
        if self.facts.is_empty() {
            *self = other;
            return;
        }
        let texts: Vec<Number> = other.names.texts.iter().map(|t| self.names.text(t)).collect();
        let pis: Vec<Number> =
            other.names.pis.iter().map(|u| self.names.pi(&u.pid, &u.serial).0).collect();
        let base = self.facts.len();
        let text = |number: Number| texts[number as usize];
        self.facts.extend(other.facts.into_iter().map(|facts| ReportFacts {
            pi: pis[facts.pi as usize],
            tag: text(facts.tag),
            subscription: text(facts.subscription),
            header_account:
                facts.header_account.map(|(smart, virtual_)| (text(smart), text(virtual_))),
            ..facts
        }));
        for ((group, item), claims) in other.by_group {
            let group = match group {
                Group::Alone(pi) => Group::Alone(pis[pi as usize]),
                several @ Group::Several(_) => several,
            };
            let held = self.by_group.entry((group, text(item))).or_default();
            held.extend(claims.into_iter().map(|c| Claim { report: base + c.report, ..c }));
        }
    }

    /// Adds a claim of nobody's report: that usage stayed in a gap as it was before.
    pub fn fill(&mut self, several: Option<u64>, (tag, item): (&str, &str), gap: &Gap) {
        let pi = self.names.pi(&gap.udi.pid, &gap.udi.serial).0;
        let item = self.names.text(item);
        let account = gap.via.as_ref().and_then(|via| via.account.as_ref());
        let facts = ReportFacts {
            report_id: u64::MAX,
            pi,
            tag: self.names.text(tag),
            subscription: self.names.text(&gap.subscription),
            header_account: account.map(|(s, v)| (self.names.text(s), self.names.text(v))),
            utility: gap.utility,
            verified: false,
            payload_sha256: Hash::default(),
        };
        let group = several.map_or(Group::Alone(pi), Group::Several);
        let Span { start, end } = gap.span;
        let claim = Claim { start, end, value: gap.value, report: 0 };
        self.add(group, item, facts, std::iter::once(claim));
    }

    /// The claims of each group and item, in no order, with the item's name.
    #[must_use]
    pub fn groups(&self) -> Vec<(&str, &[Claim])> {
        self.by_group
            .iter()
            .map(|((_, item), claims)| (self.names.text_of(*item), claims.as_slice()))
            .collect()
    }
}
