//! Names of header fields, spelled as we send them. Field names ignore case (RFC 9110 5.1).

/// Where NOTIFYs go.
pub const CALL_BACK: &str = "Call-Back";
/// One per Ping; opaque to the back end, which repeats it in NOTIFY.
pub const SUBSCRIBE_GROUP: &str = "Subscribe-group";
/// A list of subscriptions.
pub const SUBSCRIPTION_ID: &str = "Subscription-id";
/// Seconds.
pub const SUBSCRIPTION_LIFETIME: &str = "Subscription-lifetime";
/// Seconds by which changes other than additions may wait.
pub const NOTIFICATION_DELAY: &str = "Notification-delay";
/// `update` for us.
pub const NOTIFICATION_TYPE: &str = "Notification-type";
/// `1` for us.
pub const DEPTH: &str = "Depth";
/// The URI to poll.
pub const CONTENT_LOCATION: &str = "Content-Location";

/// The boot id of the back end process, 32 hex digits.
pub const BOOT: &str = "DirectPush-Boot";
/// The act-for token.
pub const ACT_FOR: &str = "DirectPush-Act-For";
/// Why a request was refused: `credential`, `front-end`, `call-back`, `token`, `devices`, and those of submission.
pub const REASON: &str = "DirectPush-Reason";
/// `<DeviceType>/<DeviceId>`, each encoded.
pub const DEVICE: &str = "DirectPush-Device";
/// Why the device writes: a [`crate::change::Cause`].
pub const CAUSE: &str = "DirectPush-Cause";
/// The EAS type of a folder that a front end makes.
pub const FOLDER_TYPE: &str = "DirectPush-Folder-Type";
/// The token of the device's last Sync response, or `none`.
pub const TOKEN: &str = "DirectPush-Token";
/// Unix seconds; older items never wake.
pub const FLOOR: &str = "DirectPush-Floor";
/// The mailbox's hierarchy number.
pub const HIERARCHY: &str = "DirectPush-Hierarchy";
/// Grows with each write to an object of the device.
pub const DEVICE_STATE: &str = "DirectPush-Device-State";
/// Seconds between the POLLs of this front end.
pub const POLL_INTERVAL: &str = "DirectPush-Poll-Interval";
/// `now` or `later`: something counted already when the subscription was made.
pub const CHANGED: &str = "DirectPush-Changed";
/// A device event.
pub const EVENT: &str = "DirectPush-Event";
/// `t`: end the subscriptions only if something counts.
pub const ONLY_IF_CHANGED: &str = "DirectPush-Only-If-Changed";
/// `t`: nothing counted, the subscriptions live on.
pub const KEPT: &str = "DirectPush-Kept";
/// Subscriptions of this call-back.
pub const COUNT: &str = "DirectPush-Count";
/// What the back end calls a message that was handed in.
pub const SUBMISSION: &str = "DirectPush-Submission";
/// What the administrator ordered for a device: a [`super::standing::Order`].
pub const ORDER: &str = "DirectPush-Order";
/// Which policy is in force for the device's user: a [`super::standing::PolicyHash`].
pub const POLICY: &str = "DirectPush-Policy";
/// The device's User-Agent, percent-encoded.
pub const AGENT: &str = "DirectPush-Agent";
/// The protocol version of the device's request.
pub const VERSION: &str = "DirectPush-Version";
/// The command of the device's request.
pub const COMMAND: &str = "DirectPush-Command";
/// The scheme of a front end's own credential in `Authorization`.
pub const FE_SCHEME: &str = "DirectPush";
