//! Status values, as typed enums: the common ones with their HTTP equivalents, and each command's own.
//!
//! Source: [MS-ASCMD] 2.2.2 Common Status Codes, 2.2.3.177.11 Status (Ping), 2.2.3.177.7 Status
//! (GetItemEstimate), 2.2.3.177.17 Status (Sync); [MS-ASPROV] Status.

numbered! {
    /// Statuses that any command may answer, from 14.0 up; before, their HTTP equivalent says it.
    #[expect(missing_docs, reason = "the names are the specification's, and say it all")]
    CommonStatus {
        InvalidContent = 101,
        InvalidWbxml = 102,
        InvalidXml = 103,
        InvalidDateTime = 104,
        InvalidCombinationOfIds = 105,
        InvalidIds = 106,
        InvalidMime = 107,
        DeviceIdMissingOrInvalid = 108,
        DeviceTypeMissingOrInvalid = 109,
        ServerError = 110,
        ServerErrorRetryLater = 111,
        ActiveDirectoryAccessDenied = 112,
        MailboxQuotaExceeded = 113,
        MailboxServerOffline = 114,
        SendQuotaExceeded = 115,
        MessageRecipientUnresolved = 116,
        MessageReplyNotAllowed = 117,
        MessagePreviouslySent = 118,
        MessageHasNoRecipient = 119,
        MailSubmissionFailed = 120,
        MessageReplyFailed = 121,
        AttachmentIsTooLarge = 122,
        UserHasNoMailbox = 123,
        UserCannotBeAnonymous = 124,
        UserPrincipalCouldNotBeFound = 125,
        UserDisabledForSync = 126,
        UserOnNewMailboxCannotSync = 127,
        UserOnLegacyMailboxCannotSync = 128,
        DeviceIsBlockedForThisUser = 129,
        AccessDenied = 130,
        AccountDisabled = 131,
        SyncStateNotFound = 132,
        SyncStateLocked = 133,
        SyncStateCorrupt = 134,
        SyncStateAlreadyExists = 135,
        SyncStateVersionInvalid = 136,
        CommandNotSupported = 137,
        VersionNotSupported = 138,
        DeviceNotFullyProvisionable = 139,
        RemoteWipeRequested = 140,
        LegacyDeviceOnStrictPolicy = 141,
        DeviceNotProvisioned = 142,
        PolicyRefresh = 143,
        InvalidPolicyKey = 144,
        ExternallyManagedDevicesNotAllowed = 145,
        NoRecurrenceInCalendar = 146,
        UnexpectedItemClass = 147,
        RemoteServerHasNoSsl = 148,
        InvalidStoredRequest = 149,
        ItemNotFound = 150,
        TooManyFolders = 151,
        NoFoldersFound = 152,
        ItemsLostAfterMove = 153,
        FailureInMoveOperation = 154,
        BodyPartPreferenceTypeNotSupported = 164,
        DeviceInformationRequired = 165,
        InvalidAccountId = 166,
        AccountSendDisabled = 167,
        RightsManagementDisabled = 168,
        BodyPartConversationTooLarge = 176,
        MaximumDevicesReached = 177,
        InvalidRecipients = 183,
        OneOrMoreExceptionsFailed = 184,
    }
}

impl CommonStatus {
    /// What a device below 14.0 is answered instead, as an HTTP status.
    ///
    /// Where the specification states no equivalent: 400 for a fault of the request, 403 for a
    /// refusal, 503 for trouble here (never 500, from which iOS concludes that its cache is lost).
    pub const fn http(self) -> u16 {
        match self {
            Self::ServerError => 500,
            Self::CommandNotSupported => 501,
            Self::MailboxQuotaExceeded => 507,
            Self::ServerErrorRetryLater | Self::MailboxServerOffline | Self::SyncStateLocked => 503,
            Self::LegacyDeviceOnStrictPolicy
            | Self::RemoteWipeRequested
            | Self::DeviceNotProvisioned
            | Self::PolicyRefresh
            | Self::InvalidPolicyKey => 449,
            Self::ActiveDirectoryAccessDenied
            | Self::UserHasNoMailbox
            | Self::UserCannotBeAnonymous
            | Self::UserPrincipalCouldNotBeFound
            | Self::UserDisabledForSync
            | Self::UserOnNewMailboxCannotSync
            | Self::UserOnLegacyMailboxCannotSync
            | Self::DeviceIsBlockedForThisUser
            | Self::AccessDenied
            | Self::AccountDisabled
            | Self::SyncStateNotFound
            | Self::DeviceNotFullyProvisionable
            | Self::ExternallyManagedDevicesNotAllowed
            | Self::MaximumDevicesReached => 403,
            _ => 400,
        }
    }
}

numbered! {
    /// Answers of Ping ([MS-ASCMD] 2.2.3.177.11 Status (Ping)).
    PingStatus {
        /// The heartbeat passed and nothing changed.
        Expired = 1,
        /// Folders changed; the response lists them.
        Changed = 2,
        /// Something needed was neither sent nor cached: send it all.
        MissingParameters = 3,
        /// The body is not a Ping.
        Syntax = 4,
        /// The heartbeat is out of range; the response carries the nearest bound.
        HeartbeatOutOfRange = 5,
        /// More folders than allowed; the response says how many are.
        TooManyFolders = 6,
        /// The device's hierarchy is outdated: FolderSync first.
        FolderSyncRequired = 7,
        /// Trouble on the server, often passing.
        ServerError = 8,
    }
}

numbered! {
    /// Answers of Sync, for the whole, a collection or an item ([MS-ASCMD] 2.2.3.177.17 Status (Sync)).
    SyncStatus {
        /// Done.
        Success = 1,
        /// The key is not known: the collection starts again from key 0.
        InvalidSyncKey = 3,
        /// The request breaks the protocol.
        ProtocolError = 4,
        /// Trouble on the server.
        ServerError = 5,
        /// An item of the device could not be understood.
        ConversionError = 6,
        /// The server's version of the item won.
        Conflict = 7,
        /// The item is gone.
        ObjectNotFound = 8,
        /// The mailbox is full, or another reason why the command cannot complete.
        CannotComplete = 9,
        /// The folder is gone: FolderSync first.
        FolderSyncRequired = 12,
        /// An empty or partial request without anything cached: send it all.
        IncompleteRequest = 13,
        /// `Wait` or `HeartbeatInterval` out of range; the response carries the nearest bound.
        WaitOutOfRange = 14,
        /// More collections than allowed; the response says how many are.
        TooManyCollections = 15,
        /// Try again.
        Retry = 16,
    }
}

numbered! {
    /// Answers of FolderSync ([MS-ASCMD] Status (FolderSync)).
    FolderSyncStatus {
        /// Done.
        Success = 1,
        /// Trouble on the server.
        ServerError = 6,
        /// The key is not known: start again from key 0.
        InvalidSyncKey = 9,
        /// The request lacks something.
        Malformed = 10,
        /// An error without a name.
        UnknownError = 11,
        /// An error without a name, on the server's side.
        CodeUnknown = 12,
    }
}

numbered! {
    /// Answers of FolderCreate, FolderUpdate and FolderDelete ([MS-ASCMD] Status of each).
    FolderChangeStatus {
        /// Done.
        Success = 1,
        /// The parent has a folder of this name.
        Exists = 2,
        /// The folder is one of those that every mailbox has.
        SpecialFolder = 3,
        /// The folder does not exist.
        NotFound = 4,
        /// The parent does not exist.
        ParentNotFound = 5,
        /// Trouble on the server.
        ServerError = 6,
        /// The key is not known: FolderSync first.
        InvalidSyncKey = 9,
        /// The request lacks something.
        Malformed = 10,
        /// An error without a name.
        UnknownError = 11,
        /// An error without a name, on the server's side.
        CodeUnknown = 12,
    }
}

numbered! {
    /// Answers of GetItemEstimate ([MS-ASCMD] 2.2.3.177.7 Status (GetItemEstimate)).
    ItemEstimateStatus {
        /// Done.
        Success = 1,
        /// The collection does not exist.
        InvalidCollection = 2,
        /// The collection was never synchronised, so there is nothing to compare with.
        NotPrimed = 3,
        /// The key is not known.
        InvalidSyncKey = 4,
    }
}

numbered! {
    /// Answers of ItemOperations, for the whole or an operation ([MS-ASCMD] 2.2.3.177.8 Status
    /// (ItemOperations); 155 and 156: 2.2.3.118 MoveAlways and [MS-ASCON] 2.2.2.10 Status).
    ItemOperationsStatus {
        /// Done.
        Success = 1,
        /// The request breaks the protocol.
        ProtocolError = 2,
        /// Trouble on the server.
        ServerError = 3,
        /// The document's URI is no good.
        BadUri = 4,
        /// The document is not for this user.
        DocumentAccessDenied = 5,
        /// There is no such thing, or it is not for this user.
        NotFound = 6,
        /// The document's server does not answer.
        ConnectionFailed = 7,
        /// The range is not one, or outside.
        InvalidRange = 8,
        /// The store is not known, or not served.
        UnknownStore = 9,
        /// The document is empty.
        EmptyFile = 10,
        /// It is too much for one answer.
        TooLarge = 11,
        /// The document could not be read.
        IoFailure = 12,
        /// The item could not be converted.
        ConversionFailed = 14,
        /// There is no such attachment.
        InvalidAttachment = 15,
        /// It is not for this user.
        AccessDenied = 16,
        /// Some of it was done.
        PartialSuccess = 17,
        /// The document needs another credential.
        CredentialsRequired = 18,
        /// A conversation is moved with its later messages or not at all.
        MoveAlwaysRequired = 155,
        /// This cannot be done with a conversation here.
        ActionNotSupported = 156,
    }
}

numbered! {
    /// Answers of Search, of its store ([MS-ASCMD] Status (Search)).
    SearchStatus {
        /// Done.
        Success = 1,
        /// The request breaks the protocol.
        InvalidRequest = 2,
        /// Trouble on the server.
        ServerError = 3,
        /// A link that leads nowhere (documents).
        BadLink = 4,
        /// The user may not (documents).
        AccessDenied = 5,
        /// It does not exist (documents).
        NotFound = 6,
        /// Another server does not answer (documents).
        ConnectionFailed = 7,
        /// The query has more parts than are searched for.
        TooComplex = 8,
        /// The index is not loaded.
        IndexNotLoaded = 9,
        /// Nothing was found in time; there may be something.
        TimedOut = 10,
        /// A folder is not known: FolderSync first.
        FolderSyncRequired = 11,
        /// The range begins behind the last result.
        EndOfRange = 12,
        /// Not searched here (documents).
        AccessBlocked = 13,
        /// A password is needed (documents).
        CredentialsRequired = 14,
    }
}

numbered! {
    /// Answers of Find ([MS-ASCMD] Status (Find)).
    FindStatus {
        /// Done.
        Success = 1,
        /// The request cannot be carried out as it is.
        InvalidRequest = 2,
        /// A folder is not known: FolderSync first.
        FolderSyncRequired = 3,
        /// The range does not begin with 0.
        InvalidRange = 4,
    }
}

numbered! {
    /// Answers of Settings, for the whole or a part ([MS-ASCMD] Status (Settings)).
    SettingsStatus {
        /// Done.
        Success = 1,
        /// The request breaks the protocol.
        ProtocolError = 2,
        /// The user may not.
        AccessDenied = 3,
        /// Trouble on the server.
        ServerUnavailable = 4,
        /// A value is not one that there is.
        InvalidArguments = 5,
        /// Values contradict each other.
        ConflictingArguments = 6,
        /// The policy does not want it.
        DeniedByPolicy = 7,
    }
}

numbered! {
    /// Answers of Provision as a whole ([MS-ASPROV] Status).
    ProvisionStatus {
        /// Done.
        Success = 1,
        /// The request breaks the protocol.
        ProtocolError = 2,
        /// Trouble on the server.
        ServerError = 3,
        /// The device did not apply all of a policy that it must.
        DeviceNotFullyProvisionable = 139,
        /// The device knows no policies, and this user needs one that does.
        LegacyDeviceOnStrictPolicy = 141,
        /// The device is managed by somebody else, and that is not allowed.
        ExternallyManagedDevicesNotAllowed = 145,
        /// From 14.1 up the first request must describe the device.
        DeviceInformationRequired = 165,
    }
}

numbered! {
    /// The server's word on one policy ([MS-ASPROV] Status).
    PolicyStatus {
        /// Here it is, or: acknowledged.
        Success = 1,
        /// There is no policy for this device; it stops asking.
        NotDefined = 2,
        /// The policy type is not known.
        UnknownType = 3,
        /// The policy is damaged on the server.
        Corrupt = 4,
        /// The device acknowledges another policy than the one it was given.
        WrongKey = 5,
    }
}

numbered! {
    /// The device's word on the policy that it was given ([MS-ASPROV] Status).
    PolicyAcknowledgement {
        /// All of it is in force.
        Applied = 1,
        /// Some of it is in force.
        PartlyApplied = 2,
        /// The device ignores it.
        Ignored = 3,
        /// Somebody else manages the device.
        ExternallyManaged = 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_equivalents_are_those_of_the_specification() {
        let stated = [
            (101, 400),
            (103, 400),
            (106, 400),
            (110, 500),
            (111, 503),
            (112, 403),
            (113, 507),
            (125, 403),
            (126, 403),
            (132, 403),
            (137, 501),
            (138, 400),
            (140, 449),
            (141, 449),
            (142, 449),
            (143, 449),
            (144, 449),
        ];
        for (code, http) in stated {
            assert_eq!(CommonStatus::from_code(code).unwrap().http(), http, "status {code}");
        }
    }

    #[test]
    fn codes_lead_back_to_their_status() {
        for &status in PingStatus::ALL {
            assert_eq!(PingStatus::from_code(i64::from(status.code())), Some(status));
        }
        assert_eq!(PingStatus::ALL.len(), 8);
        assert_eq!(SyncStatus::from_code(2), None);
        assert_eq!(CommonStatus::from_code(-156), None);
        assert_eq!(CommonStatus::InvalidPolicyKey.to_string(), "144");
    }
}
