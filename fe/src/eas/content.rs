//! Where messages are rendered: on threads of their own, few at a time, with a panic and a long
//! run contained. A message that brings either about goes to the device as a placeholder.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use directpush_common::eas::sync::ApplicationData;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::render::{self, Attachment, Facts, Wish, application_data, unreadable};

/// Messages rendered at once. One that does not end keeps its thread, and its place.
const AT_ONCE_MAX: usize = 8;
/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The threads that render.
pub struct Content {
    places: Arc<Semaphore>,
}

/// Why work on a message came to nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hopeless(&'static str);

impl Default for Content {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE_MAX)) }
    }
}

impl Content {
    /// The ApplicationData of a message.
    pub async fn render(&self, mime: Bytes, facts: Facts, wish: Wish) -> ApplicationData {
        self.contain(facts.clone(), wish.clone(), move || application_data(&mime, &facts, &wish)).await
    }

    /// An attachment of a message by the number of its part; `None` when there is none.
    pub async fn attachment(&self, mime: Bytes, part: usize) -> Option<Attachment> {
        self.work(move || render::attachment(&mime, part)).await.ok().flatten()
    }

    async fn contain(
        &self,
        facts: Facts,
        wish: Wish,
        render: impl FnOnce() -> ApplicationData + Send + 'static,
    ) -> ApplicationData {
        match self.work(render).await {
            Ok(data) => data,
            Err(Hopeless(cause)) => {
                tracing::warn!(
                    item = facts.reference,
                    cause,
                    "a message cannot be rendered; the device gets a placeholder"
                );
                unreadable(&facts, &wish)
            }
        }
    }

    /// Does anything with a message's bytes, which may be hostile.
    ///
    /// # Errors
    /// [`Hopeless`] when it panics or takes too long.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Hopeless> {
        // A queue is no fault of this message: only the work itself has a limit.
        let place = Arc::clone(&self.places).acquire_owned().await;
        let done = timeout(PATIENCE, async {
            let Ok(place) = place else { return None };
            let working = tokio::task::spawn_blocking(move || {
                let done = work();
                drop(place);
                done
            });
            working.await.ok()
        });
        match done.await {
            Ok(Some(done)) => Ok(done),
            Ok(None) => Err(Hopeless("panics")),
            Err(_) => Err(Hopeless("takes too long")),
        }
    }
}

#[cfg(test)]
mod tests {
    use directpush_common::eas::Version;

    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_a_placeholder_and_gives_its_place_back() {
        let content = Content::default();
        let facts = Facts { read: true, reference: "2:1".into(), ..Facts::default() };
        let wish = Wish::new(Version::V14_1);
        for _ in 0..=AT_ONCE_MAX {
            let data = content.contain(facts.clone(), wish.clone(), || panic!("hostile")).await;
            assert_eq!(data, unreadable(&facts, &wish));
        }
        assert_eq!(content.places.available_permits(), AT_ONCE_MAX);
    }
}
