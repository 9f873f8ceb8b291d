//! Tests of the work queue: single scenarios in virtual time, and a simple model.
mod model;
mod stories;
