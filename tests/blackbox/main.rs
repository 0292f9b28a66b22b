//! The binary from outside: what a person or another program sees (contract 4).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod book;
mod commands;
mod compliance;
mod corrected;
mod demo;
mod disputes;
mod evidence;
mod kill;
mod memo;
mod part;
mod queries;
mod rules;
mod serve;
mod statements;
mod support;
mod suspense;
mod tidy;
