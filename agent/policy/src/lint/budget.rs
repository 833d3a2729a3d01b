//! How much is compared before a lint gives up: a million rules about the same subjects are
//! comparisons by their square, and a check that never ends is worth less than one that says what
//! it left out.

/// Enough for thousands of rules about the same subjects; a fraction of a second.
const COMPARISONS: usize = 10_000_000;

#[derive(Debug)]
pub(super) struct Budget {
    left: Option<usize>,
}

// === impl Budget ===

impl Default for Budget {
    fn default() -> Self {
        Self {
            left: Some(COMPARISONS),
        }
    }
}

impl Budget {
    /// Whether there is enough left; what has not been enough once never is again.
    pub(super) fn spend(&mut self, comparisons: usize) -> bool {
        self.left = self.left.and_then(|left| left.checked_sub(comparisons));
        self.left.is_some()
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left.is_none()
    }
}
