//! Books whose rows say the same in another order come to the same money.

use schemas::book::Book;

use super::{Claimed, DEVICES, PRICES, PURCHASES, SUBSCRIPTIONS, accounts, book, check, claim};

const CATALOG: &str = "entitlement_tag,name,enforcement,duration,postpaid_allowed,equivalence
T1,One,unenforced,subscription,true,G
T2,Other,unenforced,subscription,true,G
";

/// A table with these rows, and with the same rows turned around.
fn both_orders(header: &str, rows: [&str; 2]) -> [String; 2] {
    let [one, other] = rows;
    [format!("{header}{one}\n{other}\n"), format!("{header}{other}\n{one}\n")]
}

/// The book of an account in a zone, with a table of what it has a right to, and prices.
fn of(zone: &str, rights: (&str, &str), prices: &str) -> Book {
    let accounts = accounts("USD", zone);
    book(&[
        ("accounts", &accounts),
        ("devices", DEVICES),
        ("catalog", CATALOG),
        rights,
        ("prices", prices),
    ])
}

/// Of one day's usage in licence-days: p costs 1, q costs 2.
fn prices() -> String {
    format!(
        "{PRICES}p,G,usage,2026-01-01,license-days,flat,,1,,USD\nq,G,usage,2026-01-01,license-days,flat,,2,,USD\n"
    )
}

/// A uses 8 of T1 for ten days, B 4 of T2 for all thirty: 12 × 10 = 120 licence-days, then 4 × 20 = 80.
fn used(utility: bool) -> [Claimed; 2] {
    let mut used = [
        claim("A", "T1", "2026-09-01", "2026-09-11", 8),
        claim("B", "T2", "2026-09-01", "2026-10-01", 4),
    ];
    for claimed in &mut used {
        claimed.facts.utility = utility;
    }
    used
}

/// One subscription id for two tags of one item, with a plan for each.
#[test]
fn the_plan_of_a_subscription_is_that_of_the_row_in_force_that_started_last() {
    for (rows, expected) in [
        // They start together: T2 is the greatest tag.
        (
            [
                "S1,sa,va,T1,UNCOMMITTED,,p,2026-01-01,2026-09-11",
                "S1,sa,va,T2,UNCOMMITTED,,q,2026-01-01,",
            ],
            vec!["usage charge 2026-09 200 0 200 400.00"],
        ),
        // T1's row started last, and ends.
        (
            [
                "S1,sa,va,T1,UNCOMMITTED,,p,2026-02-01,2026-09-11",
                "S1,sa,va,T2,UNCOMMITTED,,q,2026-01-01,",
            ],
            vec!["usage charge 2026-09 120 0 120 120.00", "usage charge 2026-09 80 0 80 160.00"],
        ),
    ] {
        for subscriptions in both_orders(SUBSCRIPTIONS, rows) {
            let book = of("UTC", ("subscriptions", &subscriptions), &prices());
            check(&book, "2026-09", &used(true), &expected);
        }
    }
}

#[test]
fn of_purchases_with_one_start_and_id_the_greatest_plan_counts() {
    // 12 − 2 for ten days, 4 − 2 for twenty: 140.
    let rows = ["P1,sa,va,T1,1,2026-01-01,,p", "P1,sa,va,T2,1,2026-01-01,,q"];
    for purchases in both_orders(PURCHASES, rows) {
        let book = of("UTC", ("purchases", &purchases), &prices());
        check(&book, "2026-09", &used(false), &["usage charge 2026-09 200 60 140 280.00"]);
    }
}

#[test]
fn of_a_date_and_the_instant_that_it_means_the_instant_counts() {
    let rows = [
        "p,G,usage,2026-09-01,license-days,flat,,1,,USD",
        "p,G,usage,2026-08-31T22:00:00Z,license-days,flat,,3,,USD",
    ];
    // In Berlin September starts at 22:00Z: 4 × 30 days.
    for prices in both_orders(PRICES, rows) {
        let book = of(
            "Europe/Berlin",
            ("purchases", &format!("{PURCHASES}P1,sa,va,T1,0,2026-01-01,,p\n")),
            &prices,
        );
        let used = claim("B", "T2", "2026-08-31T22:00:00Z", "2026-09-30T22:00:00Z", 4);
        check(&book, "2026-09", &[used], &["usage charge 2026-09 120 0 120 360.00"]);
    }
}
