//! Words that thousands of devices have in common (a folder's path, a User-Agent), each kept once.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;

/// A shared text. One pointer wide: the length stands with the text, because each device pays for what refers to it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Word(Arc<Box<str>>);

impl Deref for Word {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Word {
    fn borrow(&self) -> &str {
        self
    }
}

/// The words that are kept.
#[derive(Debug, Default)]
pub struct Words(Mutex<HashSet<Word>>);

impl Words {
    /// Different words kept, at most; beyond, a word belongs to whoever asked for it.
    const KEPT_MAX: usize = 10_000;

    /// The shared copy of `text`.
    pub fn share(&self, text: &str) -> Word {
        let mut kept = self.0.lock();
        if let Some(known) = kept.get(text) {
            return known.clone();
        }
        let new = Word(Arc::new(text.into()));
        if kept.len() < Self::KEPT_MAX {
            kept.insert(new.clone());
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_kept_once_and_is_one_pointer_wide() {
        let words = Words::default();
        let (a, b) = (words.share("Inbox/"), words.share("Inbox/"));
        assert!(Arc::ptr_eq(&a.0, &b.0) && &*words.share("Sent/") == "Sent/");
        assert_eq!(size_of::<Word>(), size_of::<usize>());
    }
}
