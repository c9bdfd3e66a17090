//! Limits, signatures and foreign bytes of announcements.
