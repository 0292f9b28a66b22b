//! What the machine can do at best: nothing but the checks of a fleet's signatures, with parsed keys,
//! everything in memory.
//!
//!     bare-verify FLEET THREADS [eight]
//!
//! By aws-lc, one after the other, or eight at a time as an ingest does it. Prints the number of
//! signatures that verify and the nanoseconds that it took.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "benches read their arguments and the clock")]
#![allow(clippy::print_stdout, reason = "the result")]

use std::path::Path;
use std::time::Instant;

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(fleet), Some(threads)) = (args.next(), args.next()) else {
        panic!("bare-verify FLEET THREADS [eight]");
    };
    let threads: usize = threads.parse().unwrap();
    let eight = args.next().is_some_and(|how| how == "eight");
    let fleet = Path::new(&fleet);
    let book = benches::book(&fleet.join("book"));
    let (signed, keys) = benches::signatures(&benches::reports(&fleet.join("reports")), &book);
    let started = Instant::now();
    let verified: usize = std::thread::scope(|scope| {
        let parts = signed.chunks(signed.len().div_ceil(threads).max(1));
        let running: Vec<_> = parts
            .map(|part| {
                scope.spawn(|| {
                    if eight {
                        return benches::verified_eight_at_a_time(part, &keys);
                    }
                    let good = |s: &&benches::Signed| {
                        keys[s.key].parsed.verify_sig(&s.message, &s.signature).is_ok()
                    };
                    part.iter().filter(good).count()
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("{verified} {}", started.elapsed().as_nanos());
}
