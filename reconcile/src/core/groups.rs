//! PI groups: UDIs that an accepted report names together (contract 3.1).

use std::collections::{BTreeMap, HashMap, HashSet};

use schemas::udi::Udi;

/// Groups under construction: a union-find over the UDIs that some `ha_udi` names.
#[derive(Clone)]
pub struct Groups {
    /// PIs under vManage: struck from every `ha_udi`, each its own group (R2.6).
    alone: HashSet<Udi>,
    index: HashMap<Udi, usize>,
    parent: Vec<usize>,
}

impl Groups {
    #[must_use]
    pub fn new(alone: HashSet<Udi>) -> Self {
        Groups { alone, index: HashMap::new(), parent: Vec::new() }
    }

    /// Takes one report's `ha_udi`; the reporting PI belongs to it.
    pub fn join(&mut self, reporter: &Udi, ha_udi: &[Udi]) {
        if ha_udi.is_empty() {
            return;
        }
        let mut first = None;
        for udi in std::iter::once(reporter).chain(ha_udi) {
            if self.alone.contains(udi) {
                continue;
            }
            let member = self.member(udi);
            match first {
                None => first = Some(member),
                Some(first) => self.unite(first, member),
            }
        }
    }

    fn member(&mut self, udi: &Udi) -> usize {
        if let Some(&i) = self.index.get(udi) {
            return i;
        }
        let i = self.parent.len();
        self.parent.push(i);
        self.index.insert(udi.clone(), i);
        i
    }

    fn root(&mut self, mut i: usize) -> usize {
        while self.parent[i] != i {
            self.parent[i] = self.parent[self.parent[i]];
            i = self.parent[i];
        }
        i
    }

    fn unite(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[a.max(b)] = a.min(b);
    }

    /// The members of each group.
    #[must_use]
    pub fn members(self) -> Vec<Vec<Udi>> {
        let mut by_number: BTreeMap<u64, Vec<Udi>> = BTreeMap::new();
        for (udi, number) in self.finish() {
            by_number.entry(number).or_default().push(udi);
        }
        by_number.into_values().collect()
    }

    /// Every UDI that was named together with others, and the number of its group.
    #[must_use]
    pub fn finish(mut self) -> Vec<(Udi, u64)> {
        let members: Vec<(Udi, usize)> = std::mem::take(&mut self.index).into_iter().collect();
        let mut all: Vec<(Udi, u64)> =
            members.into_iter().map(|(udi, i)| (udi, self.root(i) as u64)).collect();
        all.sort();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udi(serial: &str) -> Udi {
        Udi::new("C8000V", serial)
    }

    /// Groups as sorted lists of serials.
    fn groups(alone: &[&str], reports: &[(&str, &[&str])]) -> Vec<String> {
        let mut groups = Groups::new(alone.iter().map(|s| udi(s)).collect());
        for (reporter, ha) in reports {
            groups.join(&udi(reporter), &ha.iter().map(|s| udi(s)).collect::<Vec<_>>());
        }
        let mut by_number: std::collections::BTreeMap<u64, Vec<String>> = Default::default();
        for (udi, number) in groups.finish() {
            by_number.entry(number).or_default().push(udi.serial);
        }
        let mut all: Vec<String> = by_number.into_values().map(|m| m.join("")).collect();
        all.sort();
        all
    }

    #[test]
    fn groups_merge_over_shared_members() {
        assert_eq!(
            groups(&[], &[("a", &["a", "b"]), ("c", &["c", "d"]), ("b", &["b", "c"])]),
            ["abcd"]
        );
        assert_eq!(groups(&[], &[("a", &["b"]), ("c", &["d"])]), ["ab", "cd"]);
        assert_eq!(groups(&[], &[("a", &[])]), Vec::<String>::new());
    }

    #[test]
    fn a_pi_under_vmanage_is_struck() {
        assert_eq!(groups(&["v"], &[("a", &["a", "v", "b"]), ("v", &["v", "c"])]), ["ab", "c"]);
        // It reports for others: they are still named together.
        assert_eq!(groups(&["v"], &[("v", &["a", "b"])]), ["ab"]);
    }
}
