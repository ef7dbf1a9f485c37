//! Whom a user believes, as a pure decision: keys, what they count for and until when, and the rule that says how many of
//! which must agree.
//!
//! Trust is not transitive and never implied by who delivered the bytes: a realisation counts when its *signer* has a place
//! in the policy, and an output is used when the places that vouch for exactly this output satisfy the rule. The numbered
//! rules that this crate keeps stand in `docs/caches.md`; the tests here are named after them.

mod book;
mod day;
mod head;
mod index;
mod intake;
mod live;
mod pattern;
mod policy;
mod ring;
mod rule;
mod rule_text;
mod statement;
mod testimony;

pub use crate::day::{Day, DayError};
pub use crate::head::{
    HEAD_BYTES_MAX, HEAD_SIGNATURES_MAX, Head, HeadError, HeadKind, News, NotNext, SignedHead,
};
pub use crate::index::{
    CacheIndex, INDEX_TOP_BYTES_MAX, IndexError, IndexTop, SHARD_BYTES_MAX, Shard,
};
pub use crate::intake::Intake;
pub use crate::live::LivePolicy;
pub use crate::pattern::{PATTERN_BYTES_MAX, Pattern, PatternError, Scope};
pub use crate::policy::{TrustPolicy, Verdict, faults};
pub use crate::ring::{Member, Ring, Standing};
pub use crate::rule::{RULE_BYTES_MAX, RULE_DEPTH_MAX, Rule, RuleError, RuleProblem, is_rule_name};
pub use crate::statement::{
    KeyStatement, STATEMENT_BYTES_MAX, STATEMENT_PATTERNS_MAX, STATEMENTS_MAX, SignedKeyStatement,
    StatementError,
};
pub use crate::testimony::{Discount, Testimony};
