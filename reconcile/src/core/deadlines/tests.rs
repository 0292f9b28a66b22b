//! Deadlines by policy, model and transport; properties of all.

use super::*;
use crate::core::history::History;
use crate::core::history::made::{self, devices, heard};
use proptest::prelude::*;
use schemas::book::Book;

const TAG: &str = "regid.2019.com.cisco.ADV,1.0_1";
const PLUS: &str = "regid.2019.com.cisco.PLUS,1.0_2";
const HSEC: &str = "regid.2019.com.cisco.HSEC,1.0_3";

/// A book of some files, beside a catalogue of three licences.
fn book(files: &[(&str, &str)]) -> Book {
    let catalog = format!(
        "entitlement_tag,name,enforcement,duration,postpaid_allowed,equivalence\n\
         \"{TAG}\",Advantage,unenforced,subscription,true,\n\
         \"{PLUS}\",Plus,unenforced,perpetual,false,\n\
         \"{HSEC}\",HSEC,export-controlled,perpetual,false,HSECK9"
    );
    made::book(&[&[("catalog", catalog.as_str())], files].concat())
}

fn udi(serial: &str) -> Udi {
    Udi::new("C8000V", serial)
}

/// The only PI of a history.
fn of_one(book: &Book, reports: Vec<Heard>, day: i64) -> Deadline {
    let mut history = History::default();
    history.heard.insert(udi("a"), reports);
    history.sort();
    let reference = Reference::new(book);
    let fleet = Fleet::new(book, &reference, &history);
    deadlines(&fleet, book, &HashMap::new(), day * DAY).remove(0)
}

fn day_of(at: Option<EpochSeconds>) -> Option<i64> {
    at.map(|at| at / DAY)
}

/// R5.1, R5.2, R5.5: the narrowest scope wins, in it the row that names the kind most exactly.
#[test]
fn the_policy_in_use() {
    let head = "scope,scope_id,enforcement,duration,ack_required,first_report_days,reporting_frequency_days,report_on_change_days\n";
    let smart = "smart-account,sa,,,true,0,60,0\n";
    let virtual_ = "virtual-account,sa/va,unenforced,,true,0,50,0\n";
    let exact = "virtual-account,sa/va,unenforced,subscription,true,0,45,0\n";
    let other = "virtual-account,sa/va,enforced,,true,0,1,0\n";
    let pi = "product-instance,C8000V:a,,,false,0,20,10\n";
    let rows = devices(&["C8000V,a,sa,va,1970-01-01,,none,slp,,partner"]);
    for (policies, name, due) in [
        (vec![], "Cisco default", 190),
        (vec![smart], "smart-account sa", 160),
        (vec![other, smart], "smart-account sa", 160),
        (vec![smart, virtual_], "virtual-account sa/va", 150),
        (vec![exact, virtual_, smart], "virtual-account sa/va", 145),
        (vec![smart, virtual_, pi], "product-instance C8000V:a", 120),
    ] {
        let policies = format!("{head}{}", policies.concat());
        let book = book(&[("policies", &policies), ("devices", &rows)]);
        let owed = of_one(&book, vec![heard(1, 100, TAG, &[(90, 100, 2)])], 101);
        assert_eq!((owed.policy.as_str(), day_of(owed.report_due)), (name, Some(due)));
    }
}

/// R5.4, R5.6, R11.2, R2.6: by earlier model, transport and manager.
#[test]
fn who_owes_nothing_by_itself() {
    for (row, value, exemption, due) in [
        ("none,slp,,partner", 2, None, Some(190)),
        ("none,slp,,partner", 0, Some(Exemption::NeverConsumed), None),
        ("none,rtu,,partner", 2, None, Some(190)),
        ("none,slr,,partner", 2, Some(Exemption::UntilChange), None),
        ("none,pak,,partner", 2, Some(Exemption::UntilChange), None),
        ("none,plr,,partner", 2, Some(Exemption::NoReporting), None),
        ("none,csl,,partner", 2, Some(Exemption::NoReporting), None),
        ("none,eval,,partner", 2, None, Some(190)),
        ("none,slp,off,partner", 2, Some(Exemption::TransportOff), Some(190)),
        ("vmanage,slp,,partner", 2, None, Some(101)),
    ] {
        let rows = devices(&[&format!("C8000V,a,sa,va,1970-01-01,,{row}")]);
        let book = book(&[("devices", &rows)]);
        let owed = of_one(&book, vec![heard(1, 100, TAG, &[(90, 100, value)])], 100);
        assert_eq!((owed.exemption, day_of(owed.report_due)), (exemption, due), "{row}");
    }
    let rows = devices(&["C8000V,a,sa,va,1970-01-01,1970-02-01,none,slp,,partner"]);
    let book = book(&[("devices", &rows)]);
    let owed = of_one(&book, vec![heard(1, 20, TAG, &[(10, 20, 2)])], 100);
    assert_eq!(owed.exemption, Some(Exemption::Retired));
}

/// R10.5: a report and an installed ACK every 30 days, whatever the policy says.
#[test]
fn postpaid_reports_and_acks() {
    let acks = "udi_pid,udi_serial,report_id,acked_at,installed_at\n\
                C8000V,a,1,1970-03-02T00:00:00Z,1970-03-03T00:00:00Z\n";
    let utility =
        |id, day, uses: &[(i64, i64, i64)]| Heard { utility: true, ..heard(id, day, TAG, uses) };
    let reports = vec![utility(1, 60, &[(50, 60, 2)]), utility(2, 80, &[(60, 80, 2)])];
    let owed = of_one(&book(&[]), reports.clone(), 81);
    let found = (day_of(owed.report_due), day_of(owed.report_recommended), day_of(owed.ack_due));
    assert_eq!(found, (Some(110), Some(87), Some(90)), "no ACK yet: 30 days from the first report");
    assert_eq!((owed.days_left(81 * DAY), owed.state(81 * DAY)), (Some(9), "on-time"));
    let owed = of_one(&book(&[("acks", acks)]), reports, 81);
    // Installed on 3 March 1970, day 61.
    assert_eq!((day_of(owed.last_ack), day_of(owed.ack_due)), (Some(61), Some(91)));
    assert_eq!(owed.state(91 * DAY), "overdue");
    // Acknowledged on day 60, and not installed yet.
    let owed = of_one(&book(&[("acks", acks)]), vec![utility(1, 60, &[(50, 60, 2)])], 60);
    assert_eq!((owed.last_ack, day_of(owed.ack_due)), (None, Some(90)));
    // What came before utility mode sets no date of it.
    let before = heard(1, 20, TAG, &[(10, 20, 2)]);
    let reports = vec![before, utility(2, 200, &[(190, 200, 2)])];
    let owed = of_one(&book(&[("acks", acks)]), reports, 201);
    assert_eq!((day_of(owed.last_ack), day_of(owed.ack_due)), (Some(61), Some(230)));
}

/// R5.5: an ACK of an earlier numbering of its reports is none of the newest report.
#[test]
fn an_ack_comes_after_what_it_acknowledges() {
    for (ack, due) in
        [("900,1970-01-15", Some(190)), ("1,1970-04-12", None), ("900,1970-04-12", None)]
    {
        let acks = format!(
            "udi_pid,udi_serial,report_id,acked_at,installed_at\nC8000V,a,{ack}T00:00:00Z,\n"
        );
        let owed =
            of_one(&book(&[("acks", &acks)]), vec![heard(1, 100, TAG, &[(90, 100, 2)])], 102);
        assert_eq!(day_of(owed.ack_due), due, "{ack}");
    }
}

/// R5.3: another licence, more or less, from none to some, from some to none.
#[test]
fn changes_of_usage() {
    let change = |reports: Vec<Heard>| {
        let owed = of_one(&book(&[]), reports, 1000);
        (day_of(owed.change_at), day_of(owed.change_due), day_of(owed.change_reported))
    };
    let first = heard(1, 20, TAG, &[(10, 20, 2)]);
    assert_eq!(change(vec![first.clone()]), (Some(10), Some(100), Some(20)));
    let same = heard(2, 30, TAG, &[(20, 30, 2)]);
    assert_eq!(change(vec![first.clone(), same]), (Some(10), Some(100), Some(20)));
    let more = heard(2, 30, TAG, &[(20, 25, 2), (25, 30, 3)]);
    assert_eq!(change(vec![first.clone(), more]), (Some(25), Some(115), Some(30)));
    let none = heard(2, 300, TAG, &[(20, 30, 0)]);
    assert_eq!(change(vec![first.clone(), none]), (Some(20), Some(110), Some(300)), "late");
    let less = heard(2, 40, TAG, &[(14, 15, 1)]);
    let inside = vec![first.clone(), less];
    assert_eq!(change(inside), (Some(10), Some(100), Some(20)), "the greatest counts");
    let other = heard(2, 40, PLUS, &[(35, 40, 1)]);
    assert_eq!(change(vec![first, other]), (Some(35), Some(125), Some(40)));
}

/// R4.1, R5.2: nothing further is due of what is enforced or export-controlled until usage changes.
#[test]
fn export_controlled_use_is_reported_on_change_only() {
    let owed = of_one(&book(&[]), vec![heard(1, 20, HSEC, &[(10, 20, 2)])], 500);
    assert_eq!((owed.report_due, owed.exemption), (None, Some(Exemption::UntilChange)));
}

proptest! {
    /// A report received earlier never makes a deadline later than one received later does, and no later
    /// report takes a deadline back.
    #[test]
    fn deadlines_follow_receipt(
        frequency in 0u32..400,
        postpaid: bool,
        (earlier, later) in (0i64..20_000, 0i64..20_000).prop_map(|(a, b)| (a.min(b), a.max(b))),
        extra in prop::collection::vec((0i64..20_000, 0i64..6), 1..6),
    ) {
        let instructions = Instructions {
            ack_required: true,
            first_report_days: 0,
            reporting_frequency_days: frequency,
            report_on_change_days: 0,
        };
        let due = |last: i64| report_due(&instructions, postpaid, last * DAY);
        prop_assert_eq!(due(earlier).is_some(), frequency > 0 || postpaid);
        prop_assert!(due(earlier) <= due(later));
        // The same of whole histories: reports more only ever put it off.
        let reports: Vec<Heard> = extra
            .iter()
            .enumerate()
            .map(|(i, (day, value))| {
                heard(i as u64, day + 1, TAG, &[(*day, day + 1, *value + 1)])
            })
            .collect();
        let all = of_one(&book(&[]), reports.clone(), 30_000).report_due;
        let fewer = of_one(&book(&[]), reports[..1].to_vec(), 30_000).report_due;
        prop_assert!(fewer <= all);
    }
}
