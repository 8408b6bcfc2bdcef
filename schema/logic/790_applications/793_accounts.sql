-- What every account needs, asked before the table is: a constraint that fails tells the whole row, a password among
-- it, to the client and to the server's log.

-- A hash of a password that is slow to guess: argon2, bcrypt, scrypt, yescrypt, PBKDF2 or SHA-2 crypt, as crypt, PHC
-- strings, Django, passlib and Werkzeug write them. Neither a password nor a bare digest is one.
CREATE OR REPLACE FUNCTION _tidemark.is_password_hash(p_value text)
    RETURNS boolean
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT p_value ~ ANY (ARRAY[
        -- argon2 (PHC, with Django's prefix)
        '^(argon2)?\$argon2(id|i|d)\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{22,}$',
        -- bcrypt (crypt; Django's and passlib's over SHA-256)
        '^(bcrypt\$|bcrypt_sha256\$)?\$2[abxy]\$\d\d\$[A-Za-z0-9./]{53}$',
        '^\$bcrypt-sha256\$(v=2,t=2[abxy],r=\d+|2[abxy],\d+)\$[A-Za-z0-9./]{22}\$[A-Za-z0-9./]{31}$',
        -- scrypt (PHC and passlib, Django, Werkzeug, crypt) and yescrypt
        '^\$scrypt\$ln=\d+,r=\d+,p=\d+\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{22,}$',
        '^scrypt\$\d+\$[A-Za-z0-9]{8,}\$\d+\$\d+\$[A-Za-z0-9+/]{43,}={0,2}$',
        '^scrypt:\d+:\d+:\d+\$[A-Za-z0-9]{8,}\$[0-9a-f]{64,}$',
        '^\$(7|y|gy)\$[A-Za-z0-9./]+(\$[A-Za-z0-9./]+)?\$[A-Za-z0-9./]{43}$',
        -- PBKDF2 (Django, passlib, Werkzeug)
        '^pbkdf2_sha(1|256|512)\$\d+\$[A-Za-z0-9]{8,}\$[A-Za-z0-9+/]{27,}={0,2}$',
        '^\$pbkdf2(-sha256|-sha512)?\$\d+\$[A-Za-z0-9./]{11,}\$[A-Za-z0-9./]{27,}$',
        '^pbkdf2:sha(1|256|512)(:\d+)?\$[A-Za-z0-9]{8,}\$[0-9a-f]{40,}$',
        -- SHA-2 in crypt, which goes over it thousands of times
        '^\$5\$(rounds=\d+\$)?[A-Za-z0-9./]{1,16}\$[A-Za-z0-9./]{43}$',
        '^\$6\$(rounds=\d+\$)?[A-Za-z0-9./]{1,16}\$[A-Za-z0-9./]{86}$'
    ]);
$func$;
COMMENT ON FUNCTION _tidemark.is_password_hash(text) IS
'Whether a text is a hash of a password, of a kind that is slow to guess.';

CREATE OR REPLACE FUNCTION _tidemark.check_account()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.username IS NULL OR NEW.email IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'not_null_violation',
            MESSAGE = 'an account needs a username and an email', TABLE = 'users',
            COLUMN = CASE WHEN NEW.username IS NULL THEN 'username' ELSE 'email' END;
    ELSIF NEW.username !~ '\S' THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation',
            MESSAGE = 'a username is not blank', TABLE = 'users', CONSTRAINT = 'users_username_not_blank';
    ELSIF NEW.email !~ '^[^@\s]+@[^@\s]+$' THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation',
            MESSAGE = 'an email has one @ and no spaces', TABLE = 'users', CONSTRAINT = 'users_email_has_at_sign';
    ELSIF NOT _tidemark.is_password_hash(NEW.password_hash) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation',
            MESSAGE = 'that is no hash of a password', TABLE = 'users', COLUMN = 'password_hash',
            CONSTRAINT = 'users_password_hash_is_one',
            DETAIL = 'Known are argon2, bcrypt, scrypt, yescrypt, PBKDF2 and SHA-2 crypt.',
            HINT = 'The application hashes; a password or a bare digest is never stored.';
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.check_account() IS
'Row trigger of users: raises 23502 or 23514, without the row, for what is no account.';

CREATE OR REPLACE TRIGGER trg_check_account BEFORE INSERT OR UPDATE ON public.users
FOR EACH ROW EXECUTE FUNCTION _tidemark.check_account();
COMMENT ON TRIGGER trg_check_account ON public.users IS 'Refuses what is no account, without telling the row.';
