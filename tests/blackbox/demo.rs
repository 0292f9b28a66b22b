//! The README's first command.

use crate::support::Place;

#[test]
fn the_demo_shows_the_whole_way() {
    let place = Place::new();
    let shown = place.ok(0, &["demo"]);
    for part in [
        "received",
        "duplicate",
        "signature-invalid",
        "content-conflict",
        "total USD",
        "total JPY",
        "total BHD",
        "subscription-unknown",
        "Where to look next",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    for folder in ["book", "reports", "lake"] {
        assert!(place.path("rumledger-demo").join(folder).is_dir());
    }
    // What it says to look at next works as it says.
    let lake = "rumledger-demo/lake";
    assert!(
        place
            .run(&["--lake", lake, "reconcile", "--period", "2026-10"])
            .stderr
            .contains("0 lines posted")
    );
    place.ok(0, &["--lake", lake, "suspense", "list"]);
    place.ok(0, &["--lake", lake, "close", "--period", "2026-09"]);
    place.ok(0, &["--lake", lake, "sql", "SELECT * FROM usage LIMIT 5"]);
    // Again: its own folder is made anew; somebody else's is left alone.
    assert_eq!(place.ok(0, &["demo"]), shown);
    std::fs::remove_file(place.path("rumledger-demo/.made-by-rumledger-demo")).unwrap();
    assert_eq!(place.run(&["demo"]).status, 1);
}
