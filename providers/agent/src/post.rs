//! Messages between announcers by UDP.
