//! The values that labels may have: each a closed list, so that no client can make a new series.

/// The values of one label.
pub(crate) trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values with their texts, in the order of [`Label::index`].
    const VALUES: &'static [(Self, &'static str)];

    fn index(self) -> usize;
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident $label:literal { $($value:ident $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($value,)+
        }

        impl Label for $name {
            const NAME: &'static str = $label;
            const VALUES: &'static [(Self, &'static str)] = &[$((Self::$value, $text),)+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// Why a session ended.
    EndCause "cause" {
        Deleted "deleted",
        Idle "idle",
        Expired "expired",
        Evicted "evicted",
        Revoked "revoked",
        Refreshed "refreshed",
        ChildExit "child_exit",
        StartFailed "start_failed",
        ClientGone "client_gone",
        Shutdown "shutdown",
        Fault "fault",
    }
}

label! {
    /// How a child ended.
    ChildEnd "kind" {
        Success "success",
        Code "code",
        Signal "signal",
        Unknown "unknown",
    }
}

label! {
    /// What a probe has shown of a server's program.
    EraVerdict "verdict" {
        Modern "modern",
        Legacy "legacy",
        Unknown "unknown",
    }
}

label! {
    /// Why a request was refused that may be right another time, or for somebody else.
    RefusalReason "reason" {
        Full "full",
        Memory "memory",
        Backoff "backoff",
        InFlight "in_flight",
        Opening "opening",
        Draining "draining",
        Unauthorized "unauthorized",
        Forbidden "forbidden",
    }
}

label! {
    /// The method of a request.
    Method "method" {
        Get "GET",
        Post "POST",
        Delete "DELETE",
        Options "OPTIONS",
        Other "other",
    }
}

label! {
    /// The first digit of a status.
    StatusClass "status" {
        Success "2xx",
        Redirect "3xx",
        ClientError "4xx",
        ServerError "5xx",
    }
}

impl StatusClass {
    pub(crate) fn of(status: u16) -> Self {
        match status {
            ..300 => Self::Success,
            300..400 => Self::Redirect,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }
}
