-- People and what belongs to them: accounts, watchlists, alerts, notifications.

CREATE TABLE public.users (
    user_id uuid NOT NULL DEFAULT gen_random_uuid(),
    username text NOT NULL,
    email text NOT NULL,
    password_hash text,
    full_name text,
    role public.user_role NOT NULL DEFAULT 'user',
    is_active boolean NOT NULL DEFAULT true,
    is_verified boolean NOT NULL DEFAULT false,
    preferred_currency text NOT NULL DEFAULT 'USD',
    preferred_theme text NOT NULL DEFAULT 'system',
    enable_notifications boolean NOT NULL DEFAULT true,
    last_login timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT users_pkey PRIMARY KEY (user_id),
    CONSTRAINT users_username_not_blank CHECK (username ~ '\S'),
    CONSTRAINT users_email_has_at_sign CHECK (email ~ '^[^@\s]+@[^@\s]+$')
);
CREATE UNIQUE INDEX users_username_key ON public.users (lower(username));
CREATE UNIQUE INDEX users_email_key ON public.users (lower(email));
COMMENT ON INDEX public.users_username_key IS 'No two accounts with one username, whatever the case.';
COMMENT ON INDEX public.users_email_key IS 'No two accounts with one address, whatever the case.';
COMMENT ON TABLE public.users IS 'Accounts of the applications'' users.';
COMMENT ON COLUMN public.users.user_id IS 'Identity of the account.';
COMMENT ON COLUMN public.users.username IS 'Login name, unique without regard to case.';
COMMENT ON COLUMN public.users.email IS 'Address, unique without regard to case.';
COMMENT ON COLUMN public.users.password_hash IS
'Hash made by the application; the password itself never reaches the server.';
COMMENT ON COLUMN public.users.full_name IS 'Name for people.';
COMMENT ON COLUMN public.users.role IS 'What the application lets the user do.';
COMMENT ON COLUMN public.users.is_active IS 'Whether the user may log in.';
COMMENT ON COLUMN public.users.is_verified IS 'Whether the address was confirmed.';
COMMENT ON COLUMN public.users.preferred_currency IS 'Currency that amounts are shown in.';
COMMENT ON COLUMN public.users.preferred_theme IS 'Appearance of the application: light, dark or system.';
COMMENT ON COLUMN public.users.enable_notifications IS 'Whether the user wants to be told of events.';
COMMENT ON COLUMN public.users.last_login IS 'Last successful login.';

CREATE TABLE public.watchlists (
    watchlist_id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    name text NOT NULL,
    description text,
    color text,
    icon text,
    is_default boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT watchlists_pkey PRIMARY KEY (watchlist_id),
    CONSTRAINT watchlists_user_id_name_key UNIQUE (user_id, name),
    CONSTRAINT watchlists_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users (user_id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX watchlists_one_default_key ON public.watchlists (user_id) WHERE is_default;
COMMENT ON INDEX public.watchlists_one_default_key IS 'At most one default watchlist per user.';
COMMENT ON TABLE public.watchlists IS 'Named lists of assets that a user follows.';
COMMENT ON COLUMN public.watchlists.watchlist_id IS 'Identity of the list.';
COMMENT ON COLUMN public.watchlists.user_id IS 'Owner.';
COMMENT ON COLUMN public.watchlists.name IS 'Name, unique per owner.';
COMMENT ON COLUMN public.watchlists.description IS 'What the list is for.';
COMMENT ON COLUMN public.watchlists.color IS 'Colour it is shown in.';
COMMENT ON COLUMN public.watchlists.icon IS 'Icon it is shown with.';
COMMENT ON COLUMN public.watchlists.is_default IS 'The list that opens first; at most one per user.';

CREATE TABLE public.watchlist_items (
    item_id uuid NOT NULL DEFAULT gen_random_uuid(),
    watchlist_id uuid NOT NULL,
    asset_id uuid NOT NULL,
    position integer NOT NULL DEFAULT 0,
    notes text,
    price_alert_high numeric,
    price_alert_low numeric,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT watchlist_items_pkey PRIMARY KEY (item_id),
    CONSTRAINT watchlist_items_watchlist_id_asset_id_key UNIQUE (watchlist_id, asset_id),
    CONSTRAINT watchlist_items_watchlist_id_fkey FOREIGN KEY (watchlist_id)
    REFERENCES public.watchlists (watchlist_id) ON DELETE CASCADE,
    CONSTRAINT watchlist_items_asset_id_fkey FOREIGN KEY (asset_id) REFERENCES public.assets (asset_id),
    CONSTRAINT watchlist_items_low_below_high CHECK (price_alert_low < price_alert_high)
);
CREATE INDEX watchlist_items_asset_id_idx ON public.watchlist_items (asset_id);
COMMENT ON INDEX public.watchlist_items_asset_id_idx IS 'Lists that follow an asset.';
COMMENT ON TABLE public.watchlist_items IS 'Assets on a watchlist.';
COMMENT ON COLUMN public.watchlist_items.item_id IS 'Identity of the entry.';
COMMENT ON COLUMN public.watchlist_items.watchlist_id IS 'List the entry is on.';
COMMENT ON COLUMN public.watchlist_items.asset_id IS 'Asset that is followed.';
COMMENT ON COLUMN public.watchlist_items.position IS 'Place on the list, from 0.';
COMMENT ON COLUMN public.watchlist_items.notes IS 'The user''s own words.';
COMMENT ON COLUMN public.watchlist_items.price_alert_high IS 'Price above which the user wants to know.';
COMMENT ON COLUMN public.watchlist_items.price_alert_low IS 'Price below which the user wants to know.';

CREATE TABLE public.alerts (
    alert_id bigint GENERATED BY DEFAULT AS IDENTITY NOT NULL,
    user_id uuid NOT NULL,
    asset_id uuid NOT NULL,
    alert_type public.alert_type NOT NULL DEFAULT 'price',
    condition public.alert_condition NOT NULL,
    target_value numeric NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    is_triggered boolean NOT NULL DEFAULT false,
    message text,
    created_at timestamptz NOT NULL DEFAULT now(),
    triggered_at timestamptz,

    CONSTRAINT alerts_pkey PRIMARY KEY (alert_id),
    CONSTRAINT alerts_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users (user_id) ON DELETE CASCADE,
    CONSTRAINT alerts_asset_id_fkey FOREIGN KEY (asset_id) REFERENCES public.assets (asset_id),
    CONSTRAINT alerts_triggered_has_instant CHECK (is_triggered = (triggered_at IS NOT NULL))
);
CREATE INDEX alerts_user_id_idx ON public.alerts (user_id);
CREATE INDEX alerts_asset_id_idx ON public.alerts (asset_id);
CREATE INDEX alerts_armed_idx ON public.alerts (asset_id, alert_type, condition, target_value)
WHERE is_active AND NOT is_triggered;
COMMENT ON INDEX public.alerts_user_id_idx IS 'Alerts of a user.';
COMMENT ON INDEX public.alerts_asset_id_idx IS 'Alerts on an asset.';
COMMENT ON INDEX public.alerts_armed_idx IS 'Alerts that can still fire, by asset and target.';
COMMENT ON TABLE public.alerts IS 'Figures that a user wants to be told about, once.';
COMMENT ON COLUMN public.alerts.alert_id IS 'Identity of the alert.';
COMMENT ON COLUMN public.alerts.user_id IS 'Who wants to know.';
COMMENT ON COLUMN public.alerts.asset_id IS 'Asset that is watched.';
COMMENT ON COLUMN public.alerts.alert_type IS 'Which figure is watched.';
COMMENT ON COLUMN public.alerts.condition IS 'When the alert fires.';
COMMENT ON COLUMN public.alerts.target_value IS 'Figure compared with, in the asset''s quote currency for prices.';
COMMENT ON COLUMN public.alerts.is_active IS 'Whether the alert is switched on.';
COMMENT ON COLUMN public.alerts.is_triggered IS 'Whether it has fired.';
COMMENT ON COLUMN public.alerts.message IS 'What to tell the user.';
COMMENT ON COLUMN public.alerts.triggered_at IS 'When it fired.';

CREATE TABLE public.notifications (
    notification_id bigint GENERATED BY DEFAULT AS IDENTITY NOT NULL,
    user_id uuid NOT NULL,
    alert_id bigint,
    notification_type public.notification_type NOT NULL,
    message text NOT NULL,
    is_read boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT notifications_pkey PRIMARY KEY (notification_id),
    CONSTRAINT notifications_user_id_fkey FOREIGN KEY (user_id)
    REFERENCES public.users (user_id) ON DELETE CASCADE,
    CONSTRAINT notifications_alert_id_fkey FOREIGN KEY (alert_id)
    REFERENCES public.alerts (alert_id) ON DELETE SET NULL
);
CREATE INDEX notifications_user_id_created_at_idx ON public.notifications (user_id, created_at DESC);
CREATE INDEX notifications_alert_id_idx ON public.notifications (alert_id);
COMMENT ON INDEX public.notifications_user_id_created_at_idx IS 'A user''s notifications, newest first.';
COMMENT ON INDEX public.notifications_alert_id_idx IS 'Notifications that an alert caused.';
COMMENT ON TABLE public.notifications IS 'Messages for a user.';
COMMENT ON COLUMN public.notifications.notification_id IS 'Identity of the message.';
COMMENT ON COLUMN public.notifications.user_id IS 'Who is told.';
COMMENT ON COLUMN public.notifications.alert_id IS 'Alert behind the message, where there is one.';
COMMENT ON COLUMN public.notifications.notification_type IS 'What the message is about.';
COMMENT ON COLUMN public.notifications.message IS 'Text of the message.';
COMMENT ON COLUMN public.notifications.is_read IS 'Whether the user has seen it.';
