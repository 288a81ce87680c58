"""Secrets that are recognised by the text around them: addresses, headers, connection strings, password hashes and
configuration files."""

from __future__ import annotations

from data_builders.cleaning.pattern_groups import Pattern, PatternGroup

_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"

_WEBHOOKS = (
    Pattern.of("WEBHOOK", "/api/webhooks/", r"discord(?:app)?\.com/api/webhooks/(\d{15,21}/[A-Za-z0-9_-]{50,100})"),
    Pattern.of("WEBHOOK", "webhook.office.com", r"webhook\.office\.com/webhookb2/([A-Za-z0-9@/-]{60,250})"),
    Pattern.of("WEBHOOK", "hooks.slack.com", r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9/_-]{20,120})"),
    Pattern.of("WEBHOOK", "hooks.zapier.com", r"hooks\.zapier\.com/hooks/(?:catch|standard)/(\d{3,12}/[A-Za-z0-9]{5,40})"),
    Pattern.of("WEBHOOK", "hc-ping.com healthchecks.io", r"(?:hc-ping\.com|healthchecks\.io/ping)/(" + _UUID + r"|(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{20,24}(?=/))"),
    Pattern.of("WEBHOOK", "/bot/v2/hook/", r"/open-apis/bot/v2/hook/([A-Za-z0-9-]{20,60})"),
    Pattern.of("WEBHOOK", "maker.ifttt.com", r"maker\.ifttt\.com/[\w/.{}%-]{1,100}/key/([A-Za-z0-9_-]{15,60})"),
    Pattern.of("WEBHOOK", ".make.com/ .integromat.com/", r"hook\.(?:[a-z0-9]{2,6}\.)?(?:make|integromat)\.com/([A-Za-z0-9]{20,60})"),
    Pattern.of("WEBHOOK", "chat.googleapis.com", r"chat\.googleapis\.com/v1/spaces/[^\s\"']{1,200}?token=([A-Za-z0-9%_=-]{20,100})"),
    Pattern.of("WEBHOOK", "events.pagerduty.com cronitor.link /api/push/ betterstack.com",
               r"(?:events\.pagerduty\.com/integration|cronitor\.link/p|/api/push|betterstack\.com/api/v1/heartbeat)/([A-Za-z0-9]{10,64})"),
    Pattern.of("WEBHOOK", "/hooks/", r"https?://[\w.-]+(?::\d+)?/hooks/((?=[a-z]*\d)[a-z0-9]{26})(?![A-Za-z0-9])"),
    Pattern.of("WEBHOOK", ".logic.azure.com", r"\.logic\.azure\.com[^\s\"']{1,200}?[?&]sig=([A-Za-z0-9%_-]{20,100})"),
)  # fmt: skip
"""Addresses that allow whoever knows them to send messages."""

_ADDRESSES = (
    Pattern.of("DISCORD_TOKEN", "discord Discord DISCORD .run(", r"(?<![\w.-])[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}(?![\w-])"),
    Pattern.of("NPM_TOKEN", "_authToken _auth", r"(?<![A-Za-z0-9])_auth(?:Token)?\s*=\s*[\"']?([A-Za-z0-9+/=_-]{16,200})"),
    Pattern.of("AZURE_KEY", "AccountKey SharedAccessKey", r"(?:AccountKey|SharedAccessKey)\s*=\s*([A-Za-z0-9+/=]{40,100})"),
    Pattern.of("AZURE_KEY", "sig=", r"[?&]sig=([A-Za-z0-9%+/=_-]{30,120})"),
    Pattern.of("CLOUDINARY_URL", "cloudinary://", r"cloudinary://(\d{15}:[A-Za-z0-9_-]{20,40})@"),
    Pattern.of("PASSWORD", "://", r"://[^\s:/?#\[\]@\"'<>{}$]{0,64}:(?!\d{1,5}@(?:sha256:|v\d))((?:[^\s/@\"'<>{}$,]|(?<=\w)\$(?=\w)|@(?=[^\s/@\"'<>{}]{1,64}@)){1,128})@(?=[A-Za-z0-9\[{$%<\"'])"),
    Pattern.of("TOKEN", "://", r"://([A-Za-z0-9_-]{30,100})@(?=[A-Za-z0-9])"),
    Pattern.of("PASSWORD", "jdbc:oracle:", r"jdbc:oracle:\w+:[\w.-]{1,64}/([^\s/@\"'${<]{3,100})@"),
    Pattern.of("PASSWORD", "@tcp( @unix(", r"(?<![\w.-])[\w.-]{1,64}:([^\s:@\"'`/$<{]{3,100})@(?:tcp|unix)\("),
    Pattern.of("DOPPLER_TOKEN", "dp.",
             r"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,60}"),
    Pattern.of("SECRET", "key= token= auth= secret= signature= appid=",
               r"[?&](?i:(?:api_?|app_?|private_?|access_?|client_?)?(?:key|token|secret)|auth|signature|appid)=((?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{16,200})"),
    Pattern.of("PASSWORD", "?pass &pass ?pwd= &pwd=", r"[?&](?:password|passwd|pass|pwd)=([^\s\"'&<>{}$#]{4,100})"),
    Pattern.of("SECRET", "googleapis.com/bot telegram.org/bot", r"/bot(\d{6,12}:[A-Za-z0-9_-]{30,40})"),
)  # fmt: skip
"""Passwords and keys in URLs and connection strings."""

_HEADERS = (
    Pattern.of("AUTHORIZATION", "Bearer bearer", r"[Bb]earer[ \t]+((?=[A-Za-z_.~+/=-]*\d)[A-Za-z0-9_.~+/=-]{16,500})"),
    Pattern.of("AUTHORIZATION", "uthorization UTHORIZATION",
             r"(?:uthorization|UTHORIZATION)[\"']?[ \t]{0,4}[:,=]>?[ \t]{0,4}[\"']?(?:[A-Z][A-Za-z]{1,15}|bearer|token)[ \t]+(?:token=)?[\"']?((?=[A-Za-z_.~+/=-]*\d)[A-Za-z0-9_.~+/=-]{8,500})"),
    Pattern.of("AUTHORIZATION", "-TOKEN -Token -token -KEY -Key -key",
             r"(?i:\b(?:private|x-[a-z]{2,12}|api|deploy|job)-(?:api-)?(?:token|key))[\"']?[ \t]*[:,][ \t]*[\"']?((?=[A-Za-z_-]*\d)[A-Za-z0-9_.=-]{12,200})"),
    Pattern.of("AUTHORIZATION", "Basic basic", r"(?:uthorization|UTHORIZATION).{0,20}?[Bb]asic[ \t]+((?=[a-z]*[A-Z0-9+/=])[A-Za-z0-9+/=]{8,200})"),
    Pattern.of("AUTHORIZATION", "SSWS", r"\bSSWS[ \t]+([A-Za-z0-9_-]{30,60})"),
    Pattern.of("AUTHORIZATION", "uthorization UTHORIZATION",
               r"(?:uthorization|UTHORIZATION)[\"']?[ \t]{0,4}[:,=]>?[ \t]{0,4}[\"']((?=[A-Za-z_.~-]*\d)[A-Za-z0-9_.~+/=-]{16,500})[\"']"),
    Pattern.of("AUTHORIZATION", "Subscription-Key subscription-key", r"(?i:subscription-key)[\"']?[ \t]*[:=,][ \t]*[\"']?([0-9a-fA-F]{32})"),
    Pattern.of("AUTHORIZATION", "Cookie: cookie: Cookie\": cookie\": Cookie': cookie':",
               r"(?i:cookie)[\"']?[ \t]*:[ \t]*[\"']?[^\"'\n]{0,100}?(?i:\b\w{0,20}(?:sess(?:ion)?(?:_?id)?|sid|auth|token|jwt))=((?=[A-Za-z_.%-]*\d)[A-Za-z0-9_.%~-]{16,400})"),
)  # fmt: skip
"""HTTP headers."""

_HASH = r"[./A-Za-z0-9]"
_HASHES = (
    Pattern.of("PASSWORD_HASH", "$2y$ $2a$ $2b$ $2x$", r"\$2[abxy]?\\?\$\d\d\\?\$" + _HASH + r"{53}"),
    Pattern.of("PASSWORD_HASH", "apr1$ $1$ $5$ $6$ $8$ $9$ $y$ $gy$ $7$",
               r"\$(?:apr1|1|5|6|y|gy|7|8|9)\\?\$(?:rounds=\d+\\?\$)?" + _HASH + r"{1,40}\\?\$(?:" + _HASH + r"{1,40}\\?\$)?" + _HASH + r"{21,90}"),
    Pattern.of("PASSWORD_HASH", "$argon2", r"\$argon2(?:id|i|d)\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]{16,}"),
    Pattern.of("PASSWORD_HASH", "pbkdf2_sha pbkdf2:sha scrypt:", r"(?:pbkdf2_sha\d+|pbkdf2:sha\d+|scrypt)[:$][\d:]+\$[A-Za-z0-9]{4,40}\$[A-Za-z0-9+/=]{30,140}"),
    Pattern.of("PASSWORD_HASH", "{SSHA {SHA} {SMD5} {MD5} {CRYPT}", r"\{(?:S?SHA(?:256|384|512)?|S?MD5|CRYPT)\}[A-Za-z0-9+/$.]{20,120}={0,2}"),
    Pattern.of("PASSWORD_HASH", "$P$ $H$", r"\$[PH]\$[./0-9A-Za-z]{31}(?![./0-9A-Za-z])"),
    Pattern.of("PASSWORD_HASH", "SCRAM-SHA-", r"SCRAM-SHA-\d+\$\d+:[A-Za-z0-9+/=]{16,40}\$[A-Za-z0-9+/=:]{60,120}"),
    Pattern.of("PASSWORD", "password~0 password~5 password~7 password~8 password~9 secret~0 secret~5 secret~7 secret~8 secret~9 key~0 key~7", r"(?m)\b(?:password|secret|key)[ \t]+[05789][ \t]+((?=[A-Fa-f]*\d|[!-~]*[A-Za-z])[^\s\"'$<{(,;:.)]{6,100})[ \t]*(?:level[ \t]+\d+)?\r?$"),
)  # fmt: skip
"""Hashes of passwords, in the formats of Unix, web frameworks and network devices."""

_SETTINGS = (
    Pattern.of("PASSWORD", "#define", r"#[ \t]*define[ \t]+\w*(?:PASS(?:WORD|WD|CODE)?|PWD|PW|SECRET|TOKEN|API_?KEY)(?:_\d)?[ \t]+\"([^\"\s%]{4,200})\""),
    Pattern.of("PASSWORD", "requirepass masterauth", r"(?m)^[ \t]*(?:requirepass|masterauth)[ \t]+[\"']?([^\s\"'$<{]{4,200})"),
    Pattern.of("PASSWORD", "storePassword keyPassword", r"\b(?:store|key)Password[ \t]+[\"']([^\"'\s$]{4,100})[\"']"),
    Pattern.of("PASSWORD", "CDATA", r"(?i:passw(?:or)?d|pwd|pass|secret|token)>[ \t]*<!\[CDATA\[([^\]\s]{4,200})\]\]>"),
    Pattern.of("PASSWORD", "machine", r"(?<![\w-])(?:machine[ \t]+\S{1,200}|default)\s+login[ \t]+\S{1,100}\s+(?:account[ \t]+\S{1,100}\s+)?password[ \t]+(\S{3,200})"),
    Pattern.of("PASSWORD", "dentified DENTIFIED", r"(?i:\b(?:user|grant|create|alter|link|role)\b[^;\n]{0,200}?\bidentified[ \t]+(?:with[ \t]+[\w']+[ \t]+)?(?:by|as))\s+(?:password\s+)?[\"']([^\"'\s]{4,100})[\"']"),
    Pattern.of("PASSWORD", "DENTIFIED", r"\bIDENTIFIED[ \t]+BY[ \t]+(?!VALUES\b|PASSWORD\b)((?=[A-Za-z_]*[\d#$!-])[^\s\"'&:;$<{(),][^\s\"';<{(),]{3,60})"),
    Pattern.of("PASSWORD", "PASSWORD with~password", r"\b(?:PASSWORD|with password)\s+'([^'\s]{4,100})'"),
    Pattern.of("SECRET", "AUTH_KEY LOGGED_IN_KEY NONCE_KEY _SALT", r"define\(\s*['\"](?:SECURE_AUTH|AUTH|LOGGED_IN|NONCE|WP_CACHE)_(?:KEY|SALT)(?:_SALT)?['\"]\s*,\s*'([^'\n\\]{16,200})'"),
    Pattern.of("PASSWORD", "PASS pass PWD pwd SECRET secret TOKEN token KEY _key", r"\$\{\w*(?i:pass|passwd|password|pwd|secret|token|api_?key)(?:_\d)?:[-=]?((?=[A-Za-z_-]*[\d!#&@%])[^\s{}$\"']{4,100})\}"),
    Pattern.of("PASSWORD", "rootpw bindpw auth_pass BindPassword bindpasswd", r"(?m)\b(?:rootpw|bindpw|auth_pass|bindpasswd|\w*BindPassword)[ \t]+[\"']?([^\s\"'$<{;]{4,100})"),
    Pattern.of("PASSWORD", "password~ passwd~ secret~", r"(?m)^[ \t]*(?:set[ \t]+)?(?:password|passwd|secret)[ \t]+\"?((?=[A-Za-z_.-]*\d)(?=[\d_.-]*[A-Za-z])[^\s\"'$<>{}()\[\]=,;:]{6,100})\"?[ \t]*;?\r?$"),
    Pattern.of("PASSWORD", "psk= psk~= passphrase= PSK~\"", r"(?m)(?:^[ \t]*#?psk[ \t]*=[ \t]*|\bPSK[ \t]+)\"([^\"\n]{8,64})\""),
    Pattern.of("PASSWORD", ",pass", r"\b(?:user|username)=[\w.\\@-]{1,64},pass(?:word)?=([^\s,\"'$<{]{4,100})"),
    Pattern.of("SECRET", "snmp-server~community community~", r"\bsnmp-server[ \t]+community[ \t]+(?!public\b|private\b)(\S{4,60})"),
    Pattern.of("PASSWORD", "tacacs radius", r"(?m)\b(?:tacacs|radius)-server[ \t][^\n]{0,80}?\bkey[ \t]+(?:[07][ \t]+)?(\S{4,60})"),
    Pattern.of("TOKEN", "--token token: token\":", r"(?:--token[ =]|\btoken[\"']?[ \t]*[:=][ \t]*[\"']?)((?=[a-z.]*\d)[a-z0-9]{6}\.[a-z0-9]{16})(?![\w.])"),
    Pattern.of("SECRET", "mnemonic seed_phrase seedPhrase recovery_phrase MNEMONIC SEED_PHRASE",
               r"(?i:mnemonic|seed_?phrase|recovery_?phrase)\w*[\"']?\s*[:=]\s*[\"']((?:[a-z]{3,8} ){11,23}[a-z]{3,8})[\"']"),
    Pattern.of("ETHEREUM_KEY", "accounts Wallet( privateKeyToAccount( from_key( --private-key PRIVATE_KEY",
               r"(?:accounts[\"']?[ \t]*:[ \t]*\[\s*(?:[\"']0x[0-9a-fA-F]{64}[\"'],\s*){0,9}|Wallet\(|privateKeyToAccount\(|from_key\(|--private-key[ =]|PRIVATE_KEY[ \t]*[:=][ \t]*)[\"']?(?:0x)?([0-9a-fA-F]{64})(?![0-9a-fA-F])"),
)  # fmt: skip
"""Settings in configuration files, SQL and C, and defaults of environment variables."""

CONTEXTS = PatternGroup((*_WEBHOOKS, *_ADDRESSES, *_HEADERS, *_HASHES, *_SETTINGS))
"""Secrets that are recognised by the surrounding text."""
