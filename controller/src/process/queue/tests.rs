//! Tests of the work queue: single stories in virtual time, and a naive model.
mod model;
mod stories;
