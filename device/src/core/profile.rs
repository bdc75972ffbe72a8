//! Who a device is and how it behaves: everything about it that does not change while it runs.

use directpush_common::eas::{
    Version,
    folder_sync::FolderType,
    request_line::{DeviceId, DeviceType, InvalidDevice},
    sync::FilterType,
};

use super::heartbeat::Kind;

/// A device's fixed properties.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a habit of its own")]
pub struct Profile {
    /// The protocol version that it speaks at best.
    pub version: Version,
    /// The login name, as it goes into `User=`.
    pub user: String,
    /// Which device.
    pub device_id: DeviceId,
    /// What kind of device.
    pub device_type: DeviceType,
    /// How it finds its heartbeat, and what else is peculiar to that kind of phone.
    pub strategy: Kind,
    /// Whether it writes the query as base64 (from 12.1 up).
    pub base64: bool,
    /// Folders to keep in step and to watch, by their purpose.
    pub watch: Vec<FolderType>,
    /// Folders to watch without ever syncing them, as some phones do.
    pub watch_unsynced: Vec<FolderType>,
    /// How far back messages reach.
    pub filter: FilterType,
    /// The most changes of one Sync response.
    pub window: u32,
    /// Whether it provisions uninvited, as iOS and Outlook do.
    pub provisions_first: bool,
    /// Whether all folders that need it are synced by one request.
    pub syncs_together: bool,
    /// Whether `Retry-After` is ignored, as by Windows Mail.
    pub ignores_retry_after: bool,
    /// The `User-Agent` that it names itself with.
    pub user_agent: String,
}

impl Profile {
    /// A device with the habits of its strategy that keeps the Inbox.
    pub fn new(user: &str, device_id: &str, strategy: Kind) -> Result<Self, InvalidDevice> {
        let (device_type, user_agent) = match strategy {
            Kind::WindowsMobile => ("PocketPC", "MSFT-PPC/5.1.2301"),
            Kind::Android | Kind::OldAndroid => ("Android", "Android/7.1.1-EAS-2.0"),
            Kind::Fixed(_) => ("SmartPhone", concat!("directpush/", env!("CARGO_PKG_VERSION"))),
        };
        Ok(Self {
            version: if strategy == Kind::WindowsMobile { Version::V2_5 } else { Version::V14_1 },
            user: user.to_owned(),
            device_id: DeviceId::new(device_id)?,
            device_type: DeviceType::new(device_type)?,
            strategy,
            base64: false,
            watch: vec![FolderType::Inbox],
            watch_unsynced: Vec::new(),
            filter: FilterType::All,
            window: 100,
            provisions_first: false,
            syncs_together: strategy == Kind::WindowsMobile,
            ignores_retry_after: false,
            user_agent: user_agent.to_owned(),
        })
    }
}

/// The class of a folder's items, as Ping and the old Sync name it.
pub fn class_of(kind: FolderType) -> &'static str {
    match kind {
        FolderType::Tasks | FolderType::UserTasks => "Tasks",
        FolderType::Calendar | FolderType::UserCalendar => "Calendar",
        FolderType::Contacts | FolderType::UserContacts | FolderType::RecipientCache => "Contacts",
        FolderType::Notes | FolderType::UserNotes => "Notes",
        _ => "Email",
    }
}
