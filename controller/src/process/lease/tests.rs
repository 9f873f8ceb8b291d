//! Tests of the election: the rules as a table, the driver against a strict fake, and
//! the whole under chaos.

mod fake;
mod kube;
mod rules;
mod simulation;
mod single;
