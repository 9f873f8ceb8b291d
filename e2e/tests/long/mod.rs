//! Tests that take minutes: kind clusters of several nodes, the release image, contenders of the
//! benchmark. `make test` leaves them out, and `make test-long` runs them.

mod bench;
mod image;
mod kind;
