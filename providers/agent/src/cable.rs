//! TCP connections between announcers whose end shows that a process ended.
