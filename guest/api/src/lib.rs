//! What the host says to the guest and what it answers.
