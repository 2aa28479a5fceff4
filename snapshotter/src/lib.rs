//! Keeps snapshots as shared layers and feeds their pages to guests.
