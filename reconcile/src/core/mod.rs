//! Rating, pure: from claims and the book to targets and lines.
//!
//! Architecture Invariant: nothing here names a runtime, a lake, a clock or an environment, and no
//! float comes near a quantity or an amount.

pub mod actives;
pub mod adjust;
pub mod attribute;
pub mod changed;
pub mod charge;
pub mod claims;
pub mod coverage;
pub mod deadlines;
pub mod evidence;
pub mod findings;
pub mod groups;
pub mod history;
pub mod measure;
pub mod rate;
pub mod reference;
pub mod tieout;
pub mod timeline;
