//! The binary from outside: what a person or another program sees (contract 4).

mod book;
mod commands;
mod demo;
mod kill;
mod queries;
mod support;
mod tidy;
