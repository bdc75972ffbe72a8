//! How much one answer to Sync may hold, all its collections together: what a device names more often, or in more
//! collections, does not make it larger.

use directpush_common::eas::sync::{ApplicationData, CollectionResponse, CommandResponse, ServerCommand};
use directpush_common::wbxml::Element;

/// Bytes of messages in one answer.
const RESPONSE_BYTES_MAX: usize = 4 << 20;

/// What is left of an answer's bytes. The first message fits, whatever its size: nobody could be told of it otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    left: usize,
    untouched: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: RESPONSE_BYTES_MAX, untouched: true }
    }
}

impl Budget {
    /// Bytes.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Nothing more fits.
    pub fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Takes something of this size. False when it does not fit, and from then on nothing does.
    pub fn takes(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.left || self.untouched;
        self.left = if fits { self.left.saturating_sub(bytes) } else { 0 };
        self.untouched &= bytes == 0;
        fits
    }

    /// What the messages in a collection's response weigh is spent.
    pub fn spend(&mut self, response: &CollectionResponse) {
        let told = response.commands.iter().map(|command| match command {
            ServerCommand::Add { data, .. } | ServerCommand::Change { data, .. } => weight(data),
            ServerCommand::Delete { .. } | ServerCommand::SoftDelete { .. } => 0,
        });
        let fetched = response.responses.iter().map(|response| match response {
            CommandResponse::Fetch { data: Some(data), .. } => weight(data),
            _ => 0,
        });
        self.takes(told.chain(fetched).sum());
    }
}

fn weight(data: &ApplicationData) -> usize {
    data.iter().map(Element::weight).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_large_message_fits_and_then_nothing() {
        let mut budget = Budget::default();
        assert!(budget.takes(0) && budget.takes(RESPONSE_BYTES_MAX + 1) && budget.is_over());
        assert!(budget.takes(0) && !budget.takes(1));
        let mut budget = Budget::default();
        assert!(budget.takes(1) && budget.left() == RESPONSE_BYTES_MAX - 1);
        assert!(!budget.takes(RESPONSE_BYTES_MAX) && budget.is_over(), "what does not fit ends it");
    }
}
