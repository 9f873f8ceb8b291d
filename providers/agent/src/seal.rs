//! Authenticated encryption between announcers.
