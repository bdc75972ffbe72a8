//! What an administrator does to devices and to their passwords.

use directpush_common::dav::standing::Order as Told;
use directpush_common::names::{DeviceKey, UserName};
use directpush_common::sync::state::ProvisionState;
use serde::{Deserialize, Serialize};

use super::Administered;
use crate::auth::device_passwords::{DevicePassword, LABEL_CHARS_MAX};
use crate::devices::Known;
use crate::devices::record::{Access, Decided, Seen, Wipe};
use crate::error::{Error, WithCauses};
use crate::mailbox::now_secs;

/// Something to do. Devices are named `Type/Id`, or by the id alone.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DeviceOrder {
    /// Of one user.
    List {
        user: String,
    },
    Show {
        user: String,
        device: String,
    },
    Wipe {
        user: String,
        device: String,
        account_only: bool,
    },
    CancelWipe {
        user: String,
        device: String,
    },
    Block {
        user: String,
        device: String,
    },
    Allow {
        user: String,
        device: String,
    },
    Quarantine {
        user: String,
        device: String,
    },
    Forget {
        user: String,
        device: String,
    },
    AddPassword {
        user: String,
        label: String,
    },
    ListPasswords {
        user: String,
    },
    RemovePassword {
        user: String,
        id: String,
    },
}

/// The answer.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceAnswer {
    Done,
    Devices(Vec<ListedDevice>),
    /// Shown this once.
    Password {
        id: String,
        password: String,
    },
    Passwords(Vec<ListedPassword>),
}

/// A device as `device list` shows it.
#[derive(Debug, Deserialize, Serialize)]
pub struct ListedDevice {
    pub user: String,
    /// `DeviceType/DeviceId`.
    pub device: String,
    /// `none`, `allowed`, `wipe`, `account-wipe`, `blocked`, `quarantined`: what it is told.
    pub order: String,
    pub wipe: Option<Wipe>,
    pub seen: Seen,
    /// Whether it has acknowledged a policy, and the policy in force is that one.
    pub policy: PolicyStanding,
    /// What it says of itself: names and values.
    pub information: Vec<(String, String)>,
}

/// How a device stands with the policy in force.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyStanding {
    /// Nothing is demanded.
    None,
    /// It has acknowledged what is in force.
    Current,
    /// It has acknowledged something else, or nothing yet.
    Due,
}

/// A device password as it is listed.
#[derive(Debug, Deserialize, Serialize)]
pub struct ListedPassword {
    pub id: String,
    pub label: String,
    /// Unix seconds; `used` 0 = never.
    pub created: i64,
    pub used: i64,
}

struct User {
    name: UserName,
    mailbox: u64,
    policy: Box<str>,
}

/// Carries an order out.
pub(super) async fn execute(on: &Administered, order: DeviceOrder) -> Result<DeviceAnswer, String> {
    let told = |error: Error| WithCauses(&error).to_string();
    let register = &on.register;
    match order {
        DeviceOrder::List { user } => {
            let user = find(on, &user).await?;
            let mut list = Vec::new();
            for (device, known) in register.list(user.mailbox).await.map_err(told)? {
                list.push(listed(on, &user, device, known).await.map_err(told)?);
            }
            Ok(DeviceAnswer::Devices(list))
        }
        DeviceOrder::Show { user, device } => {
            let user = find(on, &user).await?;
            let device = named(on, &user, &device, true).await?;
            let known = register.find(user.mailbox, &device).await.map_err(told)?.unwrap_or_default();
            Ok(DeviceAnswer::Devices(vec![listed(on, &user, device, known).await.map_err(told)?]))
        }
        DeviceOrder::Wipe { user, device, account_only } => {
            let now = now_secs();
            decide(on, &user, &device, true, "wipe", move |it| it.wipe(account_only, now)).await
        }
        DeviceOrder::CancelWipe { user, device } => {
            decide(on, &user, &device, true, "cancel-wipe", |it| it.wipe = None).await
        }
        DeviceOrder::Block { user, device } => {
            decide(on, &user, &device, false, "block", |it| it.access = Access::Blocked).await
        }
        DeviceOrder::Quarantine { user, device } => {
            decide(on, &user, &device, false, "quarantine", |it| it.access = Access::Quarantined).await
        }
        DeviceOrder::Allow { user, device } => {
            let allow = |it: &mut Decided| {
                // One that has wiped itself may come again; one that has not yet is to be taken back by its own command.
                it.wipe = it.wipe.filter(|wipe| wipe.acknowledged.is_none());
                it.access = Access::Allowed;
            };
            decide(on, &user, &device, false, "allow", allow).await
        }
        DeviceOrder::Forget { user, device } => {
            let user = find(on, &user).await?;
            let device = named(on, &user, &device, true).await?;
            register.forget(user.mailbox, &device).await.map_err(told)?;
            tracing::info!(user = %user.name, %device, "device forgotten");
            Ok(DeviceAnswer::Done)
        }
        DeviceOrder::AddPassword { user, label } => {
            if label.chars().count() > LABEL_CHARS_MAX || label.chars().any(char::is_control) {
                return Err(format!("a label has at most {LABEL_CHARS_MAX} characters, and is one line"));
            }
            let user = find(on, &user).await?;
            let (number, password) = on.boxes.add_device_password(user.mailbox, label).await.map_err(told)?;
            tracing::info!(user = %user.name, "device password added");
            Ok(DeviceAnswer::Password { id: format!("{number:x}"), password })
        }
        DeviceOrder::ListPasswords { user } => {
            let user = find(on, &user).await?;
            let found = on.boxes.device_passwords(user.mailbox).await.map_err(told)?;
            let listed = |(number, it): (u64, DevicePassword)| ListedPassword {
                id: format!("{number:x}"),
                label: it.label,
                created: it.created,
                used: it.used,
            };
            Ok(DeviceAnswer::Passwords(found.into_iter().map(listed).collect()))
        }
        DeviceOrder::RemovePassword { user, id } => {
            let user = find(on, &user).await?;
            let number = u64::from_str_radix(&id, 16).map_err(|_| format!("{id:?} is not the id of one"))?;
            if !on.boxes.remove_device_password(user.mailbox, number).await.map_err(told)? {
                return Err(format!("{} has no device password {id}", user.name));
            }
            // Whoever logged on with it has a token.
            on.boxes.revoke_tokens(&user.name).await.map_err(told)?;
            tracing::info!(user = %user.name, "device password removed");
            Ok(DeviceAnswer::Done)
        }
    }
}

async fn find(on: &Administered, name: &str) -> Result<User, String> {
    let name = super::user(name)?;
    let account = on.boxes.users.account(&name).await.map_err(|error| WithCauses(&error).to_string())?;
    let account = account.ok_or_else(|| Error::NoUser.to_string())?;
    Ok(User { name, mailbox: account.mailbox, policy: account.policy.clone() })
}

/// The device that is meant; if it must be known here, one that is.
async fn named(on: &Administered, user: &User, text: &str, known: bool) -> Result<DeviceKey, String> {
    let all = on.register.list(user.mailbox).await.map_err(|error| WithCauses(&error).to_string())?;
    let same = |device: &DeviceKey| {
        device.to_string() == text
            || device.device_id() == text
            || format!("{}/{}", device.device_type(), device.device_id()) == text
    };
    let found: Vec<DeviceKey> = all.into_iter().map(|(device, _)| device).filter(same).collect();
    match (found.as_slice(), text.parse()) {
        ([device], _) => Ok(device.clone()),
        ([], Ok(device)) if !known => Ok(device),
        ([], _) => Err(format!("{} has no device {text}", user.name)),
        _ => Err(format!("{} has several devices {text}: name it Type/Id", user.name)),
    }
}

async fn decide(
    on: &Administered,
    user: &str,
    device: &str,
    known: bool,
    what: &str,
    change: impl FnOnce(&mut Decided) + Send + 'static,
) -> Result<DeviceAnswer, String> {
    let user = find(on, user).await?;
    let device = named(on, &user, device, known).await?;
    let change = |decided: &mut Decided| {
        change(decided);
        Ok(())
    };
    let done = on.register.decide(user.mailbox, &device, change).await;
    done.map_err(|error| WithCauses(&error).to_string())?;
    tracing::warn!(user = %user.name, %device, what, "ordered for a device");
    Ok(DeviceAnswer::Done)
}

async fn listed(
    on: &Administered,
    user: &User,
    device: DeviceKey,
    known: Known,
) -> Result<ListedDevice, Error> {
    let (_, object) = on.boxes.device_object(user.mailbox, &device, "Provision").await?;
    let state = object.and_then(|found| serde_json::from_slice::<ProvisionState>(&found.bytes).ok());
    let in_force = on.policies.of(&user.policy).map(|policy| policy.policy.hash().get());
    let policy = match (in_force, &state) {
        (None, _) => PolicyStanding::None,
        (Some(hash), Some(state)) if state.policy_key != 0 && state.policy == hash => PolicyStanding::Current,
        _ => PolicyStanding::Due,
    };
    let order = match known.decided.order() {
        Told::None => "none".to_owned(),
        order => order.to_string(),
    };
    Ok(ListedDevice {
        user: user.name.to_string(),
        device: device.to_string(),
        order,
        wipe: known.decided.wipe,
        seen: known.seen,
        policy,
        information: state.map(|state| state.information).unwrap_or_default(),
    })
}
