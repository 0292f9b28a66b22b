//! The domain as numbered rules (`shared/design/domain.md`, from Cisco's "Information About Smart Licensing
//! Using Policy"): which are applied, and which are left out, and why.
//!
//! Where a rule is applied and tested is not said here but found: code and tests cite the rules that they
//! apply (`R6.3`), and `docs/rules.md` is made of this table and of those citations.

/// One rule of the domain.
pub struct DomainRule {
    pub number: &'static str,
    pub says: &'static str,
    /// Why it is not applied, or not in full.
    pub left_out: Option<&'static str>,
}

const fn applied(number: &'static str, says: &'static str) -> DomainRule {
    DomainRule { number, says, left_out: None }
}

const fn left_out(number: &'static str, says: &'static str, why: &'static str) -> DomainRule {
    DomainRule { number, says, left_out: Some(why) }
}

/// All rules, in the order of their numbers.
pub const RULES: &[DomainRule] = &[
    applied("R1", "a product instance is identified by its UDI: PID and serial number"),
    left_out(
        "R2.1",
        "seven topologies",
        "no decision hangs on the topology: what follows from it (collector, transport, mode) is looked at each by itself",
    ),
    applied("R2.2", "the same report may arrive by push, by pull and by file: it counts once"),
    applied("R2.3", "CSLU cannot be used for PIs managed by vManage"),
    applied("R2.4", "minimum versions of collectors, and of IOS XE behind them"),
    left_out(
        "R2.5",
        "DNA Center: one ad hoc report must precede scheduled ones",
        "a copy of a report does not say whether it was ad hoc or scheduled",
    ),
    applied("R2.6", "vManage: reports every 24 hours; every device needs its own licence"),
    left_out(
        "R2.7",
        "SSM On-Prem: local accounts, interval, size, active and standby",
        "copies from an active and a standby count once as all copies do; how local accounts are kept is not in what we receive",
    ),
    applied("R2.8", "a file may hold many reports of many PIs"),
    left_out(
        "R2.9",
        "direct topology: a factory-installed trust code cannot be used to communicate",
        "reports reach us through collectors only; a factory trust code verifies as any other (R7.2)",
    ),
    applied("R3", "supported products and their first releases"),
    applied("R4.1", "enforcement types: unenforced, enforced, export-controlled"),
    applied("R4.2", "use after a subscription's end has no purchase to stand on"),
    DomainRule {
        number: "R4.3",
        says: "enforced and export-controlled licences need a SLAC, and throughput above 250 Mbps",
        left_out: Some(
            "applied by the enforcement that the catalogue gives a tag; throughput itself is not in a report",
        ),
    },
    applied("R4.4", "what stands in for a SLAC on ISR 4000 and C1100TG"),
    applied("R4.5", "a SLAC in use cannot be returned"),
    applied("R4.6", "HA: one SLAC for each UDI that needs one; in a stack only the active"),
    DomainRule {
        number: "R5.1",
        says: "a policy's instructions; zero: not required",
        left_out: Some(
            "frequency, change and ACK are applied; that a first report is late cannot be known before it is there, and then it is no longer due",
        ),
    },
    applied("R5.2", "the policy Cisco default"),
    applied("R5.3", "what a change of usage is"),
    applied("R5.4", "a PI that never consumed a licence owes no report"),
    applied("R5.5", "one policy is in use, the narrowest; in HA the active's covers all"),
    applied("R5.6", "reporting after migration, by earlier model"),
    applied("R6.1", "report_id identifies a report on its PI"),
    left_out(
        "R6.2",
        "usage shown for a PI is that of the last report received",
        "billing uses every interval, and so do our tables; nothing here shows the last report alone",
    ),
    applied("R6.3", "time reported in both storage formats is never billed twice"),
    applied("R6.4", "at most one report a day from 17.9.1, 17.3.6 and 17.6.4 on"),
    applied("R6.5", "a report may carry requests beside it"),
    applied("R6.6", "HA: usage reported by both members for the same time counts once"),
    applied("R6.7", "usage belongs to the account that held the PI at that time"),
    applied("R7.1", "the exact signed bytes, and the key on record at the signing time"),
    applied("R7.2", "a later trust code overwrites an earlier one; earlier reports keep theirs"),
    applied("R7.3", "HA: one trust code for each UDI"),
    applied(
        "R7.4",
        "a report without a trust code on record waits; a wrong signature never counts",
    ),
    applied("R10.1", "post-paid usage names a subscription id, which belongs to the account"),
    applied("R10.2", "utility mode: only C8000V, from 17.9.1a, or 17.4.1 under vManage"),
    applied("R10.3", "utility mode: Smart transport only, never Call Home"),
    applied("R10.4", "utility mode: minimum versions of CSLU and SSM On-Prem"),
    applied("R10.5", "post-paid: report sent and ACK installed every 30 days, better 7"),
    applied("R10.6", "HSECK9 cannot be post-paid"),
    applied("R10.7", "post-paid usage without a subscription in force is an exception"),
    applied("R10.8", "MSLA of CSR 1000v and ISRv is another programme"),
    applied("R10.9", "a source that may not send usage is refused"),
    applied("R11.1", "transport after upgrade"),
    applied("R11.2", "a PI whose transport is off sends nothing by itself"),
    applied("R11.3", "from 17.11.1a only PAK licences with a snapshot count"),
    applied("R11.4", "PLR needs 17.10.1a and a code of version 3"),
    applied("R11.5", "device-specific HSECK9 licences and DNA_HSEC stand for each other"),
    applied("R11.6", "which release honours PAK and SLR"),
];
