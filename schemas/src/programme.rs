//! The rules table of the licence programme: products, collectors, releases, policies, earlier models
//! (domain R2 to R5, R10, R11). Facts only; what follows from them is computed where usage is known.

use crate::book::{Duration, Enforcement, LicenseModel};
use crate::release::{Release, Train};

/// Product families that the programme knows (R3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    Isr1000,
    Isr4000,
    Asr1000,
    Csr1000v,
    Isrv,
    C8200,
    C8300,
    C8500,
    C8000v,
    C1100Tg,
}

/// A family, how its PIDs begin, and the first release that supports Smart Licensing Using Policy (R3).
pub struct FamilyRow {
    pub family: Family,
    pub name: &'static str,
    pub pid_starts: &'static [&'static str],
    pub first_release: Release,
}

const R17_3_2: Release = Release::new(17, 3, 2);
const R17_4_1: Release = Release::new(17, 4, 1);

const fn family(
    family: Family,
    name: &'static str,
    pid_starts: &'static [&'static str],
    first_release: Release,
) -> FamilyRow {
    FamilyRow { family, name, pid_starts, first_release }
}

/// R3. Where one start begins another (`C1100TG` is no `C11`), the longer stands first.
pub const FAMILIES: &[FamilyRow] = &[
    family(Family::C1100Tg, "1100 Terminal Services Gateway", &["C1100TG"], R17_4_1),
    family(Family::Isr1000, "ISR 1000", &["C11", "ISR11", "C1000-ISR"], R17_3_2),
    family(Family::Isr4000, "ISR 4000", &["ISR4"], R17_3_2),
    family(Family::Asr1000, "ASR 1000", &["ASR10"], R17_3_2),
    family(Family::Csr1000v, "CSR 1000v", &["CSR1000V"], R17_4_1),
    family(Family::Isrv, "ISRv", &["ISRV"], R17_4_1),
    family(Family::C8200, "Catalyst 8200", &["C8200"], R17_4_1),
    family(Family::C8300, "Catalyst 8300", &["C8300"], R17_3_2),
    family(Family::C8500, "Catalyst 8500", &["C8500"], R17_3_2),
    family(Family::C8000v, "Catalyst 8000V", &["C8000V"], R17_4_1),
];

/// The family of a PID; `None` for a product that the programme does not know.
#[must_use]
pub fn family_of(pid: &str) -> Option<&'static FamilyRow> {
    let starts =
        |start: &&str| pid.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start));
    FAMILIES.iter().find(|row| row.pid_starts.iter().any(starts))
}

/// The least version of a collector, and the least release of the PIs behind it (R2.4, R10.4).
pub struct CollectorRow {
    pub collector: &'static str,
    /// Only for PIs in utility mode.
    pub utility: bool,
    /// Blank for all.
    pub families: &'static [Family],
    pub least_version: &'static str,
    pub least_release: Option<Release>,
}

pub const COLLECTORS: &[CollectorRow] = &[
    CollectorRow {
        collector: "dna-center",
        utility: false,
        families: &[
            Family::Isr1000,
            Family::Isr4000,
            Family::Asr1000,
            Family::C8300,
            Family::C8500,
        ],
        least_version: "2.2.2",
        least_release: Some(R17_3_2),
    },
    CollectorRow {
        collector: "dna-center",
        utility: false,
        families: &[Family::C8200, Family::C8000v, Family::C1100Tg],
        least_version: "2.2.2",
        least_release: Some(R17_4_1),
    },
    CollectorRow {
        collector: "vmanage",
        utility: false,
        families: &[],
        least_version: "20.5.1",
        least_release: Some(Release::new(17, 5, 1).rebuilt('a')),
    },
    CollectorRow {
        collector: "ssm-on-prem",
        utility: false,
        families: &[],
        least_version: "8-202102",
        least_release: Some(Release::new(17, 3, 3)),
    },
    CollectorRow {
        collector: "cslu",
        utility: true,
        families: &[],
        least_version: "2.0.0",
        least_release: None,
    },
    CollectorRow {
        collector: "ssm-on-prem",
        utility: true,
        families: &[],
        least_version: "8-202206",
        least_release: Some(Release::new(17, 9, 1)),
    },
];

/// True if a collector's version comes before another: by their numbers, in order (`8-202102`, `20.5.1`).
/// A version without a number comes before none.
#[must_use]
pub fn is_older_version(version: &str, than: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit())
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().unwrap_or(u64::MAX))
            .collect()
    };
    let (mut version, mut than) = (numbers(version), numbers(than));
    let length = version.len().max(than.len());
    if version.is_empty() {
        return false;
    }
    version.resize(length, 0);
    than.resize(length, 0);
    version < than
}

/// The first release of utility mode: C8000V alone, by its mode (R10.2).
pub const UTILITY_AUTONOMOUS: Release = Release::new(17, 9, 1).rebuilt('a');
pub const UTILITY_CONTROLLER: Release = R17_4_1;

/// A PI of this release sends at most one report a day by itself (R6.4).
#[must_use]
pub fn is_throttled(release: Release) -> bool {
    match release.train {
        Train { major: 17, minor: 3 } => release >= Release::new(17, 3, 6),
        Train { major: 17, minor: 6 } => release >= Release::new(17, 6, 4),
        _ => release >= Release::new(17, 9, 1),
    }
}

/// A PI of this release can take a snapshot of its PAK licences (R11.3).
#[must_use]
pub fn takes_pak_snapshots(release: Release) -> bool {
    match release.train {
        Train { major: 17, minor: 3 } => release >= Release::new(17, 3, 5),
        Train { major: 17, minor: 6 } => release >= Release::new(17, 6, 2),
        train => Train::new(17, 7) <= train && train <= Train::new(17, 10),
    }
}

/// From here only PAK licences with a snapshot count (R11.3).
pub const PAK_BY_SNAPSHOT: Release = Release::new(17, 11, 1).rebuilt('a');
/// PLR needs this release and a code of this version (R11.4).
pub const PLR_RELEASE: Release = Release::new(17, 10, 1).rebuilt('a');
pub const PLR_CODE_VERSION: u32 = 3;
/// From here a PLR code of an earlier version is kept, and not honoured (R11.4).
pub const PLR_OLD_CODES: Release = Release::new(17, 4, 0);
/// From here `DNA_HSEC` replaces the device-specific names on ISR 1000 and ISR 4000 (R11.5).
pub const DNA_HSEC_RELEASE: Release = Release::new(17, 6, 1).rebuilt('a');
/// Reports have a new storage format from here (R6.3).
pub const NEW_STORAGE: Release = Release::new(17, 7, 1);
/// The equivalence group of the export-controlled licence (R4.1).
pub const HSECK9: &str = "HSECK9";

/// True of the name that stands for all device-specific HSECK9 licences (R11.5).
#[must_use]
pub fn is_dna_hsec(tag: &str) -> bool {
    tag.contains(".DNA_HSEC,") || tag.ends_with(".DNA_HSEC") || tag == "DNA_HSEC"
}

/// Which licensing model a release has, and what it honours of earlier HSECK9 licences (R11.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hseck9Row {
    pub model: LicenseModel,
    pub honours_pak: bool,
    pub honours_slr: bool,
}

#[must_use]
pub fn hseck9_row(release: Release) -> Hseck9Row {
    let (model, honours_slr) = if release < Release::new(16, 10, 1).rebuilt('a') {
        (LicenseModel::Pak, false)
    } else if release < R17_3_2 {
        (LicenseModel::Sl, true)
    } else {
        (LicenseModel::Slp, true)
    };
    Hseck9Row { model, honours_pak: true, honours_slr }
}

/// Reporting instructions of a policy, in days (R5.1); zero: not required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instructions {
    pub ack_required: bool,
    pub first_report_days: u32,
    pub reporting_frequency_days: u32,
    pub report_on_change_days: u32,
}

/// `Cisco default` (R5.2). `is_direct`: bought from the vendor, not from a distributor or partner.
#[must_use]
pub fn cisco_default(
    enforcement: Enforcement,
    duration: Duration,
    is_direct: bool,
) -> Instructions {
    let (first, frequency, change) = match (enforcement, duration) {
        (Enforcement::Enforced | Enforcement::ExportControlled, _) => (0, 0, 0),
        (Enforcement::Unenforced, Duration::Perpetual) => (if is_direct { 0 } else { 365 }, 0, 90),
        (Enforcement::Unenforced, Duration::Subscription) => (90, 90, 90),
    };
    Instructions {
        ack_required: true,
        first_report_days: first,
        reporting_frequency_days: frequency,
        report_on_change_days: change,
    }
}

/// When a PI that came from an earlier model reports (R5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reporting {
    ByPolicy,
    CiscoDefault,
    OnChangeOnly,
    Never,
}

#[must_use]
pub fn reporting_of(model: LicenseModel) -> Reporting {
    match model {
        LicenseModel::Slp | LicenseModel::Sl | LicenseModel::Rtu => Reporting::ByPolicy,
        LicenseModel::Eval => Reporting::CiscoDefault,
        LicenseModel::Slr | LicenseModel::Pak => Reporting::OnChangeOnly,
        LicenseModel::Plr | LicenseModel::Csl => Reporting::Never,
    }
}

/// Transports that a PI may have after its upgrade from an earlier model (R11.1); empty where the rule
/// says nothing.
#[must_use]
pub fn transports_after_upgrade(model: LicenseModel) -> &'static [&'static str] {
    match model {
        LicenseModel::Slr | LicenseModel::Plr => &["off"],
        LicenseModel::Eval => &["cslu", "off"],
        LicenseModel::Sl => &["callhome", "smart"],
        LicenseModel::Rtu | LicenseModel::Pak => &["cslu"],
        LicenseModel::Slp | LicenseModel::Csl => &[],
    }
}

/// Post-paid: a report sent and its ACK installed at least so often, in days (R10.5).
pub const POSTPAID_DAYS: u32 = 30;
pub const POSTPAID_RECOMMENDED_DAYS: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn release(text: &str) -> Release {
        text.parse().unwrap_or_else(|why| panic!("{why}"))
    }

    /// R3: each family by PIDs as they are sold, and its first release.
    #[test]
    fn families_and_their_first_releases() {
        for (pid, family, first) in [
            ("C1111-8P", Family::Isr1000, "17.3.2"),
            ("C1121X-8P", Family::Isr1000, "17.3.2"),
            ("ISR1100-4G", Family::Isr1000, "17.3.2"),
            ("ISR4331/K9", Family::Isr4000, "17.3.2"),
            ("ISR4451-X/K9", Family::Isr4000, "17.3.2"),
            ("ASR1001-X", Family::Asr1000, "17.3.2"),
            ("ASR1006-X", Family::Asr1000, "17.3.2"),
            ("CSR1000V", Family::Csr1000v, "17.4.1"),
            ("ISRv", Family::Isrv, "17.4.1"),
            ("C8200L-1N-4T", Family::C8200, "17.4.1"),
            ("C8300-1N1S-6T", Family::C8300, "17.3.2"),
            ("C8500-12X", Family::C8500, "17.3.2"),
            ("C8000V", Family::C8000v, "17.4.1"),
            ("C1100TG-1N24P32A", Family::C1100Tg, "17.4.1"),
        ] {
            let row = family_of(pid).unwrap_or_else(|| panic!("{pid} has no family"));
            assert_eq!((row.family, row.first_release), (family, release(first)), "{pid}");
        }
        for pid in ["N9K-C93180YC-EX", "C9300-48P", "", "C8", "ISR3945", "Ü"] {
            assert!(family_of(pid).is_none(), "{pid}");
        }
    }

    /// R2.4, R10.4: versions compare by their numbers.
    #[test]
    fn collector_versions() {
        for (version, than, older) in [
            ("2.2.1", "2.2.2", true),
            ("2.2.2", "2.2.2", false),
            ("2.10", "2.2.2", false),
            ("20.5.1", "20.5.1", false),
            ("20.4.2", "20.5.1", true),
            ("8-202012", "8-202102", true),
            ("8-202206", "8-202206", false),
            ("Version 8 Release 202102", "8-202102", false),
            ("1.6", "2.0.0", true),
            ("2", "2.0.0", false),
            ("unknown", "2.0.0", false),
        ] {
            assert_eq!(is_older_version(version, than), older, "{version} before {than}");
        }
        assert_eq!(COLLECTORS.len(), 6, "R2.4 has four rows, R10.4 two");
    }

    /// R6.4, R11.3: trains are told apart.
    #[test]
    fn trains_with_a_feature() {
        for (text, throttled, snapshots) in [
            ("17.3.4", false, false),
            ("17.3.5", false, true),
            ("17.3.6", true, true),
            ("17.4.2", false, false),
            ("17.5.1a", false, false),
            ("17.6.1a", false, false),
            ("17.6.2", false, true),
            ("17.6.4", true, true),
            ("17.7.1a", false, true),
            ("17.8.1a", false, true),
            ("17.9.1a", true, true),
            ("17.10.1a", true, true),
            ("17.11.1a", true, false),
            ("17.12.04", true, false),
        ] {
            let found = (is_throttled(release(text)), takes_pak_snapshots(release(text)));
            assert_eq!(found, (throttled, snapshots), "{text}");
        }
    }

    /// R11.6, row by row.
    #[test]
    fn hseck9_by_release() {
        for (text, model, pak, slr) in [
            ("16.9.8", LicenseModel::Pak, true, false),
            ("16.10.1a", LicenseModel::Sl, true, true),
            ("17.3.1", LicenseModel::Sl, true, true),
            ("17.3.2", LicenseModel::Slp, true, true),
            ("17.3.3", LicenseModel::Slp, true, true),
            ("17.4.1", LicenseModel::Slp, true, true),
            ("17.3.4", LicenseModel::Slp, true, true),
            ("17.5.1a", LicenseModel::Slp, true, true),
            ("17.6.1a", LicenseModel::Slp, true, true),
        ] {
            let row = Hseck9Row { model, honours_pak: pak, honours_slr: slr };
            assert_eq!(hseck9_row(release(text)), row, "{text}");
        }
        assert!(is_dna_hsec("regid.2020-11.com.cisco.DNA_HSEC,1.0_7b6f"));
        assert!(!is_dna_hsec("regid.2019-03.com.cisco.ISR_4331_Hsec,1.0_9c4e"));
    }

    /// R5.2, row by row.
    #[test]
    fn the_default_policy() {
        use Duration::{Perpetual, Subscription};
        use Enforcement::{Enforced, ExportControlled, Unenforced};
        for (enforcement, duration, direct, days) in [
            (ExportControlled, Perpetual, false, (0, 0, 0)),
            (ExportControlled, Subscription, false, (0, 0, 0)),
            (Enforced, Perpetual, true, (0, 0, 0)),
            (Enforced, Subscription, false, (0, 0, 0)),
            (Unenforced, Perpetual, false, (365, 0, 90)),
            (Unenforced, Perpetual, true, (0, 0, 90)),
            (Unenforced, Subscription, false, (90, 90, 90)),
            (Unenforced, Subscription, true, (90, 90, 90)),
        ] {
            let found = cisco_default(enforcement, duration, direct);
            assert!(found.ack_required);
            let found = (
                found.first_report_days,
                found.reporting_frequency_days,
                found.report_on_change_days,
            );
            assert_eq!(found, days, "{enforcement:?} {duration:?} {direct}");
        }
    }

    /// R5.6, R11.1, row by row.
    #[test]
    fn earlier_models() {
        use LicenseModel::{Csl, Eval, Pak, Plr, Rtu, Sl, Slp, Slr};
        use Reporting::{ByPolicy, CiscoDefault, Never, OnChangeOnly};
        for (model, reporting, transports) in [
            (Rtu, ByPolicy, &["cslu"][..]),
            (Sl, ByPolicy, &["callhome", "smart"]),
            (Slr, OnChangeOnly, &["off"]),
            (Pak, OnChangeOnly, &["cslu"]),
            (Plr, Never, &["off"]),
            (Csl, Never, &[]),
            (Eval, CiscoDefault, &["cslu", "off"]),
            (Slp, ByPolicy, &[]),
        ] {
            assert_eq!(reporting_of(model), reporting, "{model:?}");
            assert_eq!(transports_after_upgrade(model), transports, "{model:?}");
        }
    }
}
