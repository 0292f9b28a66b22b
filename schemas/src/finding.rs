//! Findings: breaches of the programme's rules, each with what it stands on and what to do.

use crate::ledger::words;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Use that is not allowed, or usage that is lost.
    Critical,
    /// What the programme asks for is not kept.
    Warning,
    /// Worth knowing.
    Notice,
}
words!(Severity { Critical = "critical", Warning = "warning", Notice = "notice" });

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    ProductUnsupported,
    ReleaseTooOld,
    CollectorNotAllowed,
    CollectorTooOld,
    ReleaseTooOldForCollector,
    CsluUnderVmanage,
    Throttle,
    UtilityProduct,
    UtilityRelease,
    UtilityCallHome,
    PostpaidTagOnPrepaid,
    PrepaidTagOnPostpaid,
    NoSlac,
    SlacReturned,
    UseAfterEnd,
    Shortage,
    PlrCodeVersion,
    PakNoSnapshot,
    Hseck9Convertible,
    HaUnderVmanage,
    SubDeviceCount,
    ClockChange,
    ReportIdGap,
    OverlapAcross1771,
    AccountMoved,
    TransportAfterUpgrade,
}
words!(Rule {
    ProductUnsupported = "product-unsupported",
    ReleaseTooOld = "release-too-old",
    CollectorNotAllowed = "collector-not-allowed",
    CollectorTooOld = "collector-too-old",
    ReleaseTooOldForCollector = "release-too-old-for-collector",
    CsluUnderVmanage = "cslu-under-vmanage",
    Throttle = "throttle",
    UtilityProduct = "utility-product",
    UtilityRelease = "utility-release",
    UtilityCallHome = "utility-call-home",
    PostpaidTagOnPrepaid = "postpaid-tag-on-prepaid",
    PrepaidTagOnPostpaid = "prepaid-tag-on-postpaid",
    NoSlac = "no-slac",
    SlacReturned = "slac-returned",
    UseAfterEnd = "use-after-end",
    Shortage = "shortage",
    PlrCodeVersion = "plr-code-version",
    PakNoSnapshot = "pak-no-snapshot",
    Hseck9Convertible = "hseck9-convertible",
    HaUnderVmanage = "ha-under-vmanage",
    SubDeviceCount = "sub-device-count",
    ClockChange = "clock-change",
    ReportIdGap = "report-id-gap",
    OverlapAcross1771 = "overlap-across-17-7-1",
    AccountMoved = "account-moved",
    TransportAfterUpgrade = "transport-after-upgrade"
});

/// What is the same of every finding of a rule.
pub struct RuleFacts {
    /// The domain's rules that are broken.
    pub rules: &'static str,
    pub severity: Severity,
    pub what_to_do: &'static str,
}

impl Rule {
    #[must_use]
    pub fn facts(self) -> RuleFacts {
        use Severity::{Critical, Notice, Warning};
        let (rules, severity, what_to_do) = match self {
            Rule::ProductUnsupported => (
                "R3",
                Warning,
                "find out what the device is; only supported products report under the programme",
            ),
            Rule::ReleaseTooOld => {
                ("R3", Warning, "upgrade the device to its family's first release")
            }
            Rule::CollectorNotAllowed => (
                "R10.9",
                Critical,
                "have the reports sent through CSLU, SSM On-Prem, a controller, or by file",
            ),
            Rule::CollectorTooOld => ("R2.4, R10.4", Warning, "upgrade the collector"),
            Rule::ReleaseTooOldForCollector => {
                ("R2.4, R10.4", Warning, "upgrade the device, or let it report another way")
            }
            Rule::CsluUnderVmanage => {
                ("R2.3", Warning, "let vManage report for the device, and take it out of CSLU")
            }
            Rule::Throttle => (
                "R6.4",
                Notice,
                "look for who forces synchronisation; one report a day is what the device sends itself",
            ),
            Rule::UtilityProduct => (
                "R10.2, R10.8",
                Critical,
                "only Catalyst 8000V has post-paid licences here; take the device out of utility mode",
            ),
            Rule::UtilityRelease => (
                "R10.2",
                Critical,
                "upgrade to 17.9.1a (17.4.1 under vManage), or take the device out of utility mode",
            ),
            Rule::UtilityCallHome => ("R10.3", Warning, "set the device's transport to smart"),
            Rule::PostpaidTagOnPrepaid => (
                "R10.1",
                Critical,
                "switch the device to utility mode: its licence is subscribed to, and not purchased",
            ),
            Rule::PrepaidTagOnPostpaid => (
                "R10.1, R10.6",
                Warning,
                "purchase the licence, or configure one that may be post-paid",
            ),
            Rule::NoSlac => (
                "R4.3, R4.4, R4.6, R11.6",
                Critical,
                "install a SLAC on the device, or stop using the licence",
            ),
            Rule::SlacReturned => {
                ("R4.5", Critical, "install a SLAC again, or disable the feature that uses it")
            }
            Rule::UseAfterEnd => ("R4.2", Critical, "renew, or stop using the licence"),
            Rule::Shortage => ("R4.2", Warning, "purchase what is missing, or use less"),
            Rule::PlrCodeVersion => {
                ("R11.4", Critical, "upgrade to 17.10.1a and install a PLR code of version 3")
            }
            Rule::PakNoSnapshot => (
                "R11.3",
                Critical,
                "downgrade to a release that takes snapshots, take one, and upgrade again",
            ),
            Rule::Hseck9Convertible => (
                "R11.5",
                Notice,
                "convert the unused licences to DNA_HSEC, so that any device may use them",
            ),
            Rule::HaUnderVmanage => {
                ("R2.6", Warning, "purchase a licence for each device: vManage shares none in HA")
            }
            Rule::SubDeviceCount => (
                "R6.6",
                Warning,
                "compare the devices under this one with what it counts; a change was not reported",
            ),
            Rule::ClockChange => {
                ("R6.1", Notice, "set the device's time by NTP; look at usage around the change")
            }
            Rule::ReportIdGap => (
                "R6.1, R6.4",
                Critical,
                "ask the device and its collector for the missing reports before they are deleted",
            ),
            Rule::OverlapAcross1771 => {
                ("R6.3", Notice, "nothing: time that both formats report is billed once")
            }
            Rule::AccountMoved => (
                "R6.7",
                Notice,
                "write into devices.csv when the device changed its account, if it did",
            ),
            Rule::TransportAfterUpgrade => (
                "R11.1, R11.2",
                Notice,
                "set the transport that the device's earlier licence model asks for",
            ),
        };
        RuleFacts { rules, severity, what_to_do }
    }

    /// All of them, in the order of their table.
    pub fn all() -> impl Iterator<Item = Rule> {
        Rule::WORDS.iter().filter_map(|word| Rule::parse(word))
    }
}
