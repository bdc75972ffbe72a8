//! A full disk and one that went read-only, below a back end that runs: a small tmpfs, and an ext4 in a file that the kernel
//! was told to give up. Each protocol says what it has for it, reading goes on, nothing acknowledged is lost, and after a
//! full disk everything goes on without a restart. Root mounts them, so `cargo xtask interop` runs these tests.

use std::{collections::BTreeMap, fs, io::Write as _, path::Path, process::Command, time::Duration};

use directpush_be::config::LmtpListen;
use directpush_common::{
    clock::Moment,
    eas::{folder_sync::FolderSyncResponse, status::CommonStatus, sync::SyncResponse},
    names::FolderId,
    wbxml::Limits,
};
use directpush_device::{
    core::{Kind, Phone, Task},
    drive::basic,
    http::{Connection, Server},
    lmtp::{Lmtp, LmtpAddress, LmtpError},
    load::mail::message,
    pair::{Backend, Frontend, Seat},
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    dav::{Dav, View, text},
    stage::{PASSWORD, PATIENCE, profile},
};

const USER: &str = "alice@example.com";
/// Enough for a store that is empty, with what it keeps in reserve.
const SMALL: &str = "40m";
const LARGE: &str = "120m";
const MESSAGE_BYTES: usize = 400_000;

/// A mounted file system; it goes with this value.
struct Mount(TempDir);

impl Mount {
    fn new(arguments: &[&str]) -> Self {
        let dir = TempDir::with_prefix("directpush-disk-").unwrap();
        mount(&[arguments, &[dir.path().to_str().unwrap()]].concat());
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn again(&self, options: &str) {
        mount(&["-o", options, self.path().to_str().unwrap()]);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn mount(arguments: &[&str]) {
    run("mount", arguments);
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A back end on that disk, and all that it acknowledged.
struct Site {
    backend: Backend,
    frontend: Frontend,
    phones: usize,
    dav: Dav,
    inbox: FolderId,
    url: String,
    /// Body by subject.
    taken: BTreeMap<String, String>,
    sent: usize,
}

impl Site {
    async fn start(state: &Path) -> Self {
        let seat = Seat::new("fe-1", false);
        let mut config = Backend::config(state, std::slice::from_ref(&seat));
        config.lmtp_listen = vec![LmtpListen::Tcp(([127, 0, 0, 1], 0).into())];
        let backend = Backend::start(config).await.unwrap();
        // After a restart there is one already.
        let _ = backend.add_user(USER, PASSWORD).await;
        let frontend = Frontend::start(Frontend::config(&seat, backend.http())).await.unwrap();
        let mut dav = Dav::person(backend.http(), USER);
        let folders = dav.hierarchy().await.unwrap();
        let inbox = folders.into_iter().find(|folder| folder.folder_type == 2).unwrap();
        Self {
            backend,
            frontend,
            phones: 0,
            dav,
            inbox: inbox.id,
            url: inbox.url,
            taken: BTreeMap::new(),
            sent: 0,
        }
    }

    fn message(&mut self) -> (String, String, String) {
        self.sent += 1;
        let subject = format!("message {}", self.sent);
        let line = format!("{:078}\r\n", self.sent);
        let body = line.repeat(MESSAGE_BYTES / line.len()) + "The end.";
        (message("bob@example.org", USER, &subject, &body), subject, body)
    }

    /// The reply to a delivery.
    async fn deliver(&mut self) -> String {
        let (whole, subject, body) = self.message();
        let LmtpAddress::Tcp(_) = self.backend.lmtp().unwrap() else { panic!("LMTP by TCP") };
        let mut lmtp = Lmtp::connect(&self.backend.lmtp().unwrap()).await.unwrap();
        let reply = match lmtp.deliver("bob@example.org", &[USER], whole.as_bytes()).await {
            Ok(answers) => answers[0].reply.clone(),
            Err(LmtpError::Refused { reply, .. }) => reply,
            Err(error) => panic!("{error}"),
        };
        if reply.starts_with("250") {
            self.taken.insert(subject, body);
        }
        reply
    }

    /// The status of a PUT.
    async fn put(&mut self) -> u16 {
        let (whole, subject, body) = self.message();
        let url = format!("{}{}.eml", self.url, subject.replace(' ', "-"));
        let status = self.dav.ask("PUT", &url, &[], whole.as_bytes()).await.unwrap().status;
        if status == 201 {
            self.taken.insert(subject, body);
        }
        status
    }

    /// All that was acknowledged can be read, and nothing else is there.
    async fn compare(&mut self) {
        let mut view = View::default();
        view.sync(&mut self.dav, self.inbox).await.unwrap();
        let mut found = BTreeMap::new();
        for item in view.items.keys() {
            let url = self.inbox.item_url(&self.dav.user, *item);
            let whole = text(&self.dav.done("GET", &url, &[], b"").await.unwrap());
            let (head, body) = whole.split_once("\r\n\r\n").unwrap();
            let subject = head.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap();
            found.insert(subject.to_owned(), body.trim_end().to_owned());
        }
        let subjects = |there: &BTreeMap<String, String>| there.keys().cloned().collect::<Vec<_>>();
        assert_eq!(subjects(&found), subjects(&self.taken));
        assert!(found == self.taken, "bodies differ");
    }

    /// A new phone up to its first Ping; the status by which the server says that it has no room for its state.
    async fn new_phone(&mut self) -> Option<CommonStatus> {
        self.phones += 1;
        let profile = profile(USER, &format!("phone{}", self.phones), Kind::Android);
        let (mut phone, mut now) = (Phone::new(profile), Moment(0));
        let server = Server::at(self.frontend.http().unwrap());
        for _ in 0..20 {
            let Some(request) = phone.next_request(now) else {
                now = phone.deadline();
                continue;
            };
            if matches!(request.task, Task::Ping(_)) {
                return None;
            }
            let mut connection = Connection::open(&server, None).await.unwrap();
            connection.send(&server, &basic(USER, PASSWORD), &request).await.unwrap();
            let (response, _) = connection.receive().await.unwrap();
            assert_eq!(response.status, 200, "{:?}", request.task);
            let (body, limits) = (&response.body, Limits::default());
            match request.task {
                Task::FolderSync => {
                    if let Ok(FolderSyncResponse::Common(status)) = FolderSyncResponse::decode(body, limits) {
                        return Some(status);
                    }
                }
                Task::Sync(_) => {
                    if let Ok(SyncResponse::Common(status)) = SyncResponse::decode(body, limits) {
                        return Some(status);
                    }
                }
                _ => {}
            }
            phone.handle_response(now, &response);
        }
        panic!("the phone never rests: {:?}", phone.trouble());
    }

    async fn stop(self) {
        self.frontend.stop().await;
        // On a disk that cannot be written it does not close in order; that it ends is enough.
        let _ = self.backend.stop().await;
    }

    async fn until_delivered(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self.deliver().await;
            if reply.starts_with("250") {
                return;
            }
            assert!(Instant::now() < deadline, "there is room again, and still: {reply}");
            sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, to mount: cargo xtask interop"]
async fn a_full_disk_is_said_and_forgotten_when_there_is_room() {
    let disk = Mount::new(&["-t", "tmpfs", "-o", &format!("size={SMALL}"), "tmpfs"]);
    let mut site = Site::start(&disk.path().join("be")).await;
    site.until_delivered().await;
    let reply = loop {
        let reply = site.deliver().await;
        if !reply.starts_with("250") {
            break reply;
        }
        assert!(site.sent < 1000, "the disk is never full");
    };
    assert!(reply.starts_with("452 4.3.1"), "{reply}");
    assert_eq!(site.put().await, 507);
    // Again and again, small things too; they may or may not fit, and nothing breaks.
    for _ in 0..20 {
        let reply = site.deliver().await;
        assert!(reply.starts_with("452 4.3.1") || reply.starts_with("250"), "{reply}");
        let status = site.put().await;
        assert!(status == 507 || status == 201, "{status}");
    }
    site.compare().await;
    disk.again(&format!("remount,size={LARGE}"));
    site.until_delivered().await;
    assert_eq!(site.put().await, 201);
    site.compare().await;
    assert_eq!(site.new_phone().await, None);

    // Somebody else takes all there is, to the last page.
    let filler = disk.path().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let mut phone = None;
    for _ in 0..100 {
        phone = site.new_phone().await;
        if phone.is_some() {
            break;
        }
    }
    assert_eq!(phone, Some(CommonStatus::MailboxQuotaExceeded), "what a phone is told: Status 113");
    assert!(site.deliver().await.starts_with("452 4.3.1"));
    assert_eq!(site.put().await, 507);
    site.compare().await;
    drop(file);
    fs::remove_file(&filler).unwrap();
    site.until_delivered().await;
    assert_eq!(site.put().await, 201);
    assert_eq!(site.new_phone().await, None);
    site.compare().await;
    println!("{} of {} messages were taken, in {SMALL} and then {LARGE}", site.taken.len(), site.sent);
    let taken = std::mem::take(&mut site.taken);
    site.stop().await;
    let mut site = Site { taken, ..Site::start(&disk.path().join("be")).await };
    site.compare().await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, to mount: cargo xtask interop"]
async fn a_disk_that_went_read_only_is_still_read() {
    let folder = TempDir::with_prefix("directpush-disk-").unwrap();
    let image = folder.path().join("image");
    let image = image.to_str().unwrap();
    run("truncate", &["-s", LARGE, image]);
    run("mkfs.ext4", &["-q", image]);
    let disk = Mount::new(&["-o", "loop", image]);
    let mut site = Site::start(&disk.path().join("be")).await;
    for _ in 0..5 {
        site.until_delivered().await;
        assert_eq!(site.put().await, 201);
    }
    // What the kernel does with a disk whose errors it cannot bear.
    disk.again("remount,abort");
    for _ in 0..5 {
        let reply = site.deliver().await;
        assert!(reply.starts_with('4'), "the MTA keeps it: {reply}");
        let status = site.put().await;
        assert!((500..600).contains(&status), "{status}");
        site.compare().await;
    }
    let taken = std::mem::take(&mut site.taken);
    site.stop().await;
    drop(disk);
    let disk = Mount::new(&["-o", "loop", image]);
    let mut site = Site { taken, ..Site::start(&disk.path().join("be")).await };
    site.compare().await;
    site.until_delivered().await;
    site.stop().await;
}
