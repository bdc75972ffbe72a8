//! Where messages are rendered: on threads of their own, few at a time, with a panic and a long
//! run contained. A message that brings either about goes to the device as a placeholder.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use directpush_common::eas::sync::ApplicationData;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::render::{Facts, Wish, application_data, unreadable};

/// Messages rendered at once. One that does not end keeps its thread, and its place.
const AT_ONCE_MAX: usize = 8;
/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The threads that render.
pub struct Content {
    places: Arc<Semaphore>,
}

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

    async fn contain(
        &self,
        facts: Facts,
        wish: Wish,
        render: impl FnOnce() -> ApplicationData + Send + 'static,
    ) -> ApplicationData {
        let reference = facts.reference.clone();
        // A queue is no fault of this message: only the rendering itself has a limit.
        let place = Arc::clone(&self.places).acquire_owned().await;
        let rendered = timeout(PATIENCE, async {
            let Ok(place) = place else { return None };
            let rendering = tokio::task::spawn_blocking(move || {
                let data = render();
                drop(place);
                data
            });
            rendering.await.ok()
        });
        match rendered.await {
            Ok(Some(data)) => data,
            outcome => {
                let cause = if outcome.is_err() { "takes too long" } else { "panics" };
                tracing::warn!(
                    item = reference,
                    cause,
                    "a message cannot be rendered; the device gets a placeholder"
                );
                unreadable(&facts, &wish)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_a_placeholder_and_gives_its_place_back() {
        let content = Content::default();
        let facts = Facts { read: true, date: 0, reference: "2:1".into() };
        let wish = Wish::Preferences { preferences: Vec::new(), mime_support: 0 };
        for _ in 0..=AT_ONCE_MAX {
            let data = content.contain(facts.clone(), wish.clone(), || panic!("hostile")).await;
            assert_eq!(data, unreadable(&facts, &wish));
        }
        assert_eq!(content.places.available_permits(), AT_ONCE_MAX);
    }
}
