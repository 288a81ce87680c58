"""Patterns of secrets: documented token formats, and the names that passwords are assigned to.

Each pattern has literal hints. To make the scan fast, a pattern is applied only to texts that contain one of its hints.
"""

from __future__ import annotations

import re

Pattern = tuple[str, tuple[str, ...], re.Pattern[str]]
"""Tuple (kind, hints, pattern). The pattern is applied to texts that contain one of the hints.

The secret is group 1 of a match, or the whole match if the pattern has no groups.
"""


def _pattern(kind: str, hints: str, expression: str) -> Pattern:
    return kind, tuple(hints.split()), re.compile(expression)


_B64 = r"[A-Za-z0-9+/]"
_URL64 = r"[A-Za-z0-9_-]"

TOKENS: tuple[Pattern, ...] = (
    _pattern("AWS_KEY", "AKIA ASIA ABIA ACCA A3T", r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}(?![A-Za-z0-9])"),
    _pattern("GITHUB_TOKEN", "ghp_ gho_ ghu_ ghs_ ghr_", r"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{36,255}"),
    _pattern("GITHUB_TOKEN", "github_pat_", r"github_pat_[A-Za-z0-9_]{50,255}"),
    _pattern("GITLAB_TOKEN", "glpat- gldt- glft- glsoat- glrt- glcbt- glptt- glagent- glimt- glffct- GR1348941",
             r"(?:gl(?:pat|dt|ft|soat|rt|cbt|ptt|agent|imt|ffct)-|GR1348941)[A-Za-z0-9_.-]{20,60}"),
    _pattern("SLACK_TOKEN", "xox xapp-", r"xox[abeoprs]-(?:\d+-)?[A-Za-z0-9-]{10,250}|xapp-\d-[A-Za-z0-9-]{20,250}"),
    _pattern("STRIPE_KEY", "sk_live_ sk_test_ rk_live_ rk_test_ whsec_", r"(?:[sr]k_(?:live|test)_|whsec_)[A-Za-z0-9+/=]{16,250}"),
    _pattern("GOOGLE_KEY", "AIza", r"AIza[A-Za-z0-9_-]{35}"),
    _pattern("GOOGLE_KEY", "GOCSPX-", r"GOCSPX-[A-Za-z0-9_-]{28}"),
    _pattern("GOOGLE_KEY", "ya29.", r"ya29\.[A-Za-z0-9_-]{20,250}"),
    _pattern("TWILIO_KEY", "SK AC", r"(?<![A-Za-z0-9])(?:SK|AC)[0-9a-f]{32}(?![A-Za-z0-9])"),
    _pattern("SENDGRID_KEY", "SG.", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}"),
    _pattern("MAILCHIMP_KEY", "-us", r"(?<![A-Za-z0-9])[0-9a-f]{32}-us\d{1,2}(?![A-Za-z0-9])"),
    _pattern("MAILGUN_KEY", "key-", r"(?<![A-Za-z0-9])key-[0-9a-f]{32}(?![A-Za-z0-9])"),
    _pattern("NPM_TOKEN", "npm_", r"(?<![A-Za-z0-9])npm_[A-Za-z0-9]{36}"),
    _pattern("PYPI_TOKEN", "pypi-Ag", r"pypi-Ag[A-Za-z0-9_-]{50,300}"),
    _pattern("AZURE_KEY", "8Q~", r"(?<![A-Za-z0-9_~.-])[A-Za-z0-9_~.]{3}8Q~[A-Za-z0-9_~.-]{31,34}"),
    _pattern("JWT", "eyJ", r"(?<![A-Za-z0-9_])eyJ[A-Za-z0-9_-]{8,}\.eyJ?[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"),
    _pattern("ANTHROPIC_KEY", "sk-ant-", r"sk-ant-[A-Za-z0-9_-]{20,200}"),
    _pattern("OPENAI_KEY", "sk-", r"(?<![A-Za-z0-9_-])sk-(?:proj-|svcacct-|admin-)?(?=[A-Za-z0-9_-]*\d)(?=[A-Za-z0-9_-]*[A-Z])[A-Za-z0-9_-]{20,250}"),
    _pattern("HUGGINGFACE_TOKEN", "hf_ api_org_", r"(?<![A-Za-z0-9])(?:hf|api_org)_[A-Za-z]{34,40}(?![A-Za-z0-9])"),
    _pattern("DIGITALOCEAN_TOKEN", "dop_v1_ doo_v1_ dor_v1_", r"do[opr]_v1_[0-9a-f]{64}"),
    _pattern("SQUARE_TOKEN", "sq0 EAAA", r"sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,43}|(?<![A-Za-z0-9])EAAA[A-Za-z0-9_-]{60}"),
    _pattern("TELEGRAM_TOKEN", ":AA", r"(?<![A-Za-z0-9:])\d{8,10}:AA[A-Za-z0-9_-]{32,33}(?![A-Za-z0-9_-])"),
    _pattern("ARTIFACTORY_TOKEN", "AKC AP", r"(?<![A-Za-z0-9])AKC(?=[A-Za-z]*\d)[A-Za-z0-9]{10,}(?![A-Za-z0-9])|(?<![A-Za-z0-9])AP[\dABCDEF][A-Za-z0-9]{8,}(?=[\s\"'])"),
    _pattern("SHOPIFY_TOKEN", "shpat_ shpca_ shppa_ shpss_", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    _pattern("DATABRICKS_TOKEN", "dapi", r"(?<![A-Za-z0-9])dapi[0-9a-f]{32}"),
    _pattern("POSTMAN_KEY", "PMAK-", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),
    _pattern("VAULT_TOKEN", "hvs. hvb. hvr.", r"(?<![A-Za-z0-9])hv[sbr]\.[A-Za-z0-9_-]{24,250}"),
    _pattern("TERRAFORM_TOKEN", ".atlasv1.", r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{60,70}"),
    _pattern("AGE_KEY", "AGE-SECRET-KEY-", r"AGE-SECRET-KEY-1[A-Z0-9]{58}"),
    _pattern("GRAFANA_TOKEN", "glsa_ glc_", r"glsa_[A-Za-z0-9]{32}_[0-9a-fA-F]{8}|(?<![A-Za-z0-9])glc_[A-Za-z0-9+/=]{32,400}"),
    _pattern("NEWRELIC_KEY", "NRAK- NRII- NRJS-", r"NR(?:AK|II|JS)-[A-Za-z0-9_-]{19,32}"),
    _pattern("SENTRY_TOKEN", "sntrys_ sntryu_", r"sntry[su]_[A-Za-z0-9+/=_-]{40,250}"),
    _pattern("LINEAR_KEY", "lin_api_ lin_oauth_", r"lin_(?:api|oauth)_[A-Za-z0-9]{40,64}"),
    _pattern("NOTION_TOKEN", "ntn_", r"(?<![A-Za-z0-9])ntn_[A-Za-z0-9]{40,50}"),
    _pattern("FIGMA_TOKEN", "figd_ figdr_ figu_", r"(?<![A-Za-z0-9])fig(?:d|dr|u)_[A-Za-z0-9_-]{40,60}"),
    _pattern("HEROKU_KEY", "HRKU-", r"HRKU-[A-Za-z0-9_-]{36,64}"),
    _pattern("VAULT_TOKEN", "=s. \"s. 's.", r"(?<=[=\"'])s\.(?=[A-Za-z]*\d)(?=[a-z0-9]*[A-Z])[A-Za-z0-9]{24}(?![\w.(])"),
    _pattern("ATLASSIAN_TOKEN", "ATATT3 ATBB", r"ATATT3[A-Za-z0-9_=-]{100,250}|(?<![A-Za-z0-9])ATBB[A-Za-z0-9]{32}"),
    _pattern("FACEBOOK_TOKEN", "EAACEdEose0cBA", r"EAACEdEose0cBA[A-Za-z0-9]+"),
    _pattern("DOCKER_TOKEN", "dckr_pat_", r"dckr_pat_[A-Za-z0-9_-]{27}"),
)  # fmt: skip
"""Token formats with a run of at least 16 letters and digits. Their hints are searched only near runs of this
length."""

CONTEXTS: tuple[Pattern, ...] = (
    _pattern("WEBHOOK", "hooks.slack.com", r"hooks\.slack\.com/(?:services|workflows)/([A-Za-z0-9/_-]{20,120})"),
    _pattern("WEBHOOK", "/api/webhooks/", r"discord(?:app)?\.com/api/webhooks/(\d{15,21}/[A-Za-z0-9_-]{50,100})"),
    _pattern("WEBHOOK", "webhook.office.com", r"webhook\.office\.com/webhookb2/([A-Za-z0-9@/-]{60,250})"),
    _pattern("DISCORD_TOKEN", "discord Discord DISCORD .run(", r"(?<![\w.-])[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}(?![\w-])"),
    _pattern("NPM_TOKEN", "_authToken _auth", r"(?<![A-Za-z0-9])_auth(?:Token)?\s*=\s*[\"']?([A-Za-z0-9+/=_-]{16,200})"),
    _pattern("AZURE_KEY", "AccountKey SharedAccessKey", r"(?:AccountKey|SharedAccessKey)\s*=\s*([A-Za-z0-9+/=]{40,100})"),
    _pattern("AZURE_KEY", "sig=", r"[?&]sig=([A-Za-z0-9%+/=_-]{30,120})"),
    _pattern("CLOUDINARY_URL", "cloudinary://", r"cloudinary://(\d{15}:[A-Za-z0-9_-]{20,40})@"),
    _pattern("PASSWORD", "://", r"://[^\s:/?#\[\]@\"'<>{}$]{0,64}:(?!\d{1,5}@(?:sha256:|v\d))((?:[^\s/@\"'<>{}$,]|(?<=\w)\$(?=\w)|@(?=[^\s/@\"'<>{}]{1,64}@)){1,128})@(?=[A-Za-z0-9\[{$%<\"'])"),
    _pattern("TOKEN", "://", r"://([A-Za-z0-9_-]{30,100})@(?=[A-Za-z0-9])"),
    _pattern("AUTHORIZATION", "Bearer bearer", r"[Bb]earer[ \t]+((?=[A-Za-z_.~+/=-]*\d)[A-Za-z0-9_.~+/=-]{16,500})"),
    _pattern("AUTHORIZATION", "uthorization UTHORIZATION",
             r"(?:uthorization|UTHORIZATION)[\"']?[ \t]{0,4}[:,=]>?[ \t]{0,4}[\"']?(?:[A-Z][A-Za-z]{1,15}|bearer|token)[ \t]+(?:token=)?[\"']?((?=[A-Za-z_.~+/=-]*\d)[A-Za-z0-9_.~+/=-]{8,500})"),
    _pattern("AUTHORIZATION", "-TOKEN -Token -token -KEY -Key -key",
             r"(?i:\b(?:private|x-[a-z]{2,12}|api|deploy|job)-(?:api-)?(?:token|key))[\"']?[ \t]*[:,][ \t]*[\"']?((?=[A-Za-z_-]*\d)[A-Za-z0-9_.=-]{12,200})"),
    _pattern("PASSWORD", "#define", r"#[ \t]*define[ \t]+\w*(?:PASS(?:WORD|WD|CODE)?|PWD|PW|SECRET|TOKEN|API_?KEY)(?:_\d)?[ \t]+\"([^\"\s%]{4,200})\""),
    _pattern("PASSWORD", "setenv", r"\bsetenv[ \t]+\w*(?:PASSWORD|PASSWD|PASS|PWD|TOKEN|SECRET|API_KEY)[ \t]+[\"']?([^\s\"'$`<{]{4,200})"),
    _pattern("PASSWORD", "requirepass masterauth", r"(?m)^[ \t]*(?:requirepass|masterauth)[ \t]+[\"']?([^\s\"'$<{]{4,200})"),
    _pattern("PASSWORD", "storePassword keyPassword", r"\b(?:store|key)Password[ \t]+[\"']([^\"'\s$]{4,100})[\"']"),
    _pattern("PASSWORD", "storepass keypass", r"(?<=\s)-(?:store|key)pass[ \t]+[\"']?([^\s\"'$<{`]{4,100})"),
    _pattern("PASSWORD", "CDATA", r"(?i:passw(?:or)?d|pwd|pass|secret|token)>[ \t]*<!\[CDATA\[([^\]\s]{4,200})\]\]>"),
    _pattern("PASSWORD", "jdbc:oracle:", r"jdbc:oracle:\w+:[\w.-]{1,64}/([^\s/@\"'${<]{3,100})@"),
    _pattern("PASSWORD", "strcpy strncpy", r"\bstrn?cpy\([ \t]*\w*(?i:password|passwd|pwd)\w*,[ \t]*\"([^\"\s%]{4,100})\""),
    _pattern("PASSWORD", "ConvertTo-SecureString", r"ConvertTo-SecureString[ \t]+(?:-String[ \t]+)?[\"']([^\"'$\s]{4,100})[\"']"),
    _pattern("PASSWORD", ".login( PlainAuth( PDO(", r"(?:\.login\([\"'][^\"'\n]{1,80}[\"']|PlainAuth\([\"'][^\"'\n]{0,80}[\"'],[ ]?[\"'][^\"'\n]{1,80}[\"']|PDO\([^,()\n]{1,120},[ ]?[\"'][^\"'\n]{1,80}[\"']),[ ]?[\"']((?=[^\"'\n]*\d)[^\s\"'${<%]{4,100})[\"']"),
    _pattern("SECRET", "?key= &key= token= ?api_key= &api_key=", r"[?&](?:api_?)?(?:key|token|access_token)=((?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{20,200})"),
    _pattern("AUTHORIZATION", "Basic basic", r"(?:uthorization|UTHORIZATION).{0,20}?[Bb]asic[ \t]+((?=[a-z]*[A-Z0-9+/=])[A-Za-z0-9+/=]{8,200})"),
    _pattern("PASSWORD", "curl wget", r"(?:curl|wget)\b[^\n]{0,200}?\s(?:-u|--user)[ =]?[\"']?[\w.@+-]{1,64}:([^\s\"'$<{]{3,100})"),
    _pattern("PASSWORD", "sshpass", r"sshpass[ \t]+-p[ \t]*[\"']?([^\s\"'$<{`][^\s\"'$<{]{2,100})"),
    _pattern("PASSWORD", "mysql", r"\bmysql(?:dump|admin)?[ \t][^\n|;&]{0,200}?(?<=\s)-p((?=[a-z]*[^a-z\s\"'$<{])[^\s\"'$<{`]{4,100})"),
    _pattern("PASSWORD", "login", r"\b(?:docker|podman|skopeo|buildah|registry|az|oc)[ \t]+login\b[^\n|;&]{0,200}?\s(?:-p|--password)[ =][\"']?([^\s\"'$<{`-][^\s\"'$<{]{2,100})"),
    _pattern("PASSWORD", "redis-cli", r"\bredis-cli\b[^\n|;&]{0,100}?\s-a[ \t]+[\"']?([^\s\"'$<{`]{3,100})"),
    _pattern("PASSWORD", "machine", r"(?<![\w-])(?:machine[ \t]+\S{1,200}|default)\s+login[ \t]+\S{1,100}\s+(?:account[ \t]+\S{1,100}\s+)?password[ \t]+(\S{3,200})"),
    _pattern("PASSWORD", ":5432: :*:", r"(?m)^[^\s:#]{1,200}:(?:\d{1,5}|\*):[^\s:]{1,64}:[^\s:]{1,64}:([^\s*]\S{2,200})$"),
    _pattern("PASSWORD", "@tcp( @unix(", r"(?<![\w.-])[\w.-]{1,64}:([^\s:@\"'`/$<{]{3,100})@(?:tcp|unix)\("),
    _pattern("PASSWORD", "NetworkCredential( Auth( auth=( UsernamePassword",
             r"(?:NetworkCredential|[Bb]asic_?Auth|\bauth=|UsernamePassword\w{1,30})\([ ]?[\"'][^\"'\n]{1,80}[\"'],[ ]?[\"']([^\s\"'${<%]{4,100})[\"']"),
    _pattern("PASSWORD", "getConnection(", r"getConnection\((?:[^()\n\"',]{1,80}|\"[^\"\n]{1,200}\"),[ ]?\"[^\"\n]{0,80}\",[ ]?\"([^\s\"${<%]{4,100})\""),
    _pattern("PASSWORD", "IDENTIFIED dentified PASSWORD", r"(?:(?i:\bidentified\s+(?:with\s+[\w']+\s+)?by)|\b(?:PASSWORD|with password))\s+'([^'\s]{4,100})'"),
    _pattern("DOPPLER_TOKEN", "dp.",
             r"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,60}"),
    _pattern("AUTHORIZATION", "SSWS", r"\bSSWS[ \t]+([A-Za-z0-9_-]{30,60})"),
)  # fmt: skip
"""Secrets that are recognised by the surrounding text."""

PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<label>[A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?P<body>)"
)
# What stands between the lines of a key: quotes, escapes, operators of concatenation, and headers of the key.
KEY_GAP = re.compile(
    r"(?:[\s\"'`\\+,.;&|#*>-]|(?:Version|Comment|Proc-Type|DEK-Info|Hash|Charset):[ \t]*[^\n\"' ]*(?: [^\n\"' ]+)*(?:\s|\Z))*"
)
KEY_RUN = re.compile(r"[A-Za-z0-9+/=]{4,}")
PUTTY_KEY = re.compile(r"(?<=Private-Lines: )\d+\r?\n(?P<body>)(?=[A-Za-z0-9+/=]{4,})")

STRONG_STEMS = (
    "password",
    "passwd",
    "passwort",
    "passphrase",
    "pwd",
    "db_pass",
    "dbpass",
    "contraseña",
    "contrasena",
    "passcode",
    "mot_de_passe",
    "kennwort",
)
"""Parts of the names of password variables. Any word that is assigned to a name with one of these parts is a secret."""
SHORT_STEMS = ("pass", "pw")
"""Names of password variables that also occur inside many other words. They count only as a whole word, or as the last
word of a name."""
NO_SECRET_TAIL = re.compile(
    r"\w*?(?:timeout|expir|polic|mode|file|path|field|propert|pattern|regex|selector|hasher|length|_?min\b|_?max\b|days|hours|"
    r"label|placeholder|hint|error|message|prompt|type|provider|valid|rule|input|izer|ize|name|format|strength|count|class\b)"
)
"""Matches ends of names that describe a property of a secret, such as `password_file` or `token_timeout`. Their values
are no secrets."""
NO_SECRET_BEFORE = re.compile(r"(?:forgot|forgotten|invalid|wrong|missing|show|hide|confirm|reset)_?\Z")
WEAK_STEMS = ("secret", "token", "credential", "key", "auth")
"""Parts of the names of variables for other secrets. A value that is assigned to a name with one of these parts is a
secret only if the value looks random."""
BEFORE_KEY = ("api", "auth", "service", "account", "db", "database", "priv", "private", "client", "access", "encryption", "signing",
              "master", "app", "license", "shared", "storage", "secret", "consumer", "deploy", "subscription", "host")  # fmt: skip
AFTER_NAME = frozenset("\"'`\\=:,(])<>?+! \t\r\n")
NAME_TAIL = re.compile(r"[\w.-]{0,60}")
# Type annotations and casts may stand between a name and its value: `key: str = "..."`, `Key string = "..."`.
QUOTED_VALUE = re.compile(
    r"""[\\]?["'`]?\]?\)?(?:[ \t]*:[ \t]*[A-Za-z_][\w.\[\] |]{0,30}|[ \t]+(?:string|String|str)\b)?[ \t]*(?:===?|!==?|:=|=>|\?=|\+=|=|:|<-|->|,|\()"""
    r"""[ \t]*(?:\([ \t]*(?:\r?\n[ \t]*)?|@?[A-Za-z_][\w.]{0,30}\(?[ \t]*)??(?:[bruRBfFLu@$]{0,2})(\\?["'`])(?!["'`])((?:(?!\1)[^\n\\]|\\(?!["'`]).|\\(?=["'`])(?!\1).){1,500}?)\1"""
)
BARE_VALUE = re.compile(
    r"""["']?[ \t]*(?:=>|:=|=|:)[ \t]*([^\s"'`#;,<>(){}\[\]]{3,300})[ \t]*(?:[#;,].*)?$""", re.MULTILINE
)
# In a sentence: `the password is tr0ub4dor&3, by the way`. PROSE_VALUE (a value after `=` or `:`) is not used in code.
SENTENCE_VALUE = re.compile(
    r"""[ \t]+(?:is|was|will be)[ \t]*:?[ \t]+["'`]?([^\s"'`<>(){}\[\]]{5,100}[^\s"'`<>(){}\[\].,;:!?])"""
)
PROSE_VALUE = re.compile(r"""[ \t]*[=:][ \t]*["'`]?([^\s"'`<>(){}\[\]]{5,100}[^\s"'`<>(){}\[\].,;:!?])""")
# Inside a connection string: up to a delimiter, or to the next setting of a libpq string.
STRING_VALUE = re.compile(r"""=([^\s"'&<>{}$();,\[\]|]{4,100})(?=[;&"']|[ ][a-z_]{2,20}=[^\s=])""")
EXPRESSION = re.compile(r"[A-Za-z_]\w*(?:(?:\.|->|::)[A-Za-z_]\w*)+(?:[*+/<>,|-].*)?\Z")
# Values in code about tokens and keys, but not secrets: regular expressions, formats, paths, names of algorithms.
NO_TOKEN = re.compile(r"\(\?|\[\^?\w-\w|%[sd]|[;:]=|\{\w*\}|/[\w.-]+\.[a-z]{2,4}\Z|\A[A-Za-z]+\d*[Ww]ith[A-Z]\w+\Z")
VERSION = re.compile(r"[\^~<>=v ]{0,3}\d+(?:\.(?:\d+|x|\*))+(?:[-+.][\w.-]+)?\Z")
SUM_BEFORE = re.compile(
    r"(?:(?:sha-?\d{0,3}|md5|checksum|commit|revision|rev|etag|integrity)(?:sum)?|digest(?:\(\))?)[\s\"'`:=(/-]{0,8}\Z",
    re.IGNORECASE,
)
ARGUMENT_VALUE = re.compile(r"""[ =]([^\s"'`$<>(){}\[\]|&;]{6,300})(?=\s|$)""")
# `{"name": "DB_PASSWORD", "value": "..."}` in JSON and YAML, `db_password: {"value": "..."}` in Terraform's state.
_NAMED = r"""["']?,?\s{0,40}(?::[ \t]*\{\s{0,40})?["']?\b(?:value|default)["']?[ \t]*[:=][ \t]*"""
NAMED_VALUE = re.compile(_NAMED + r"""["']([^\s"'<>{}$]{4,200})["']""")
NAMED_BARE_VALUE = re.compile(_NAMED + r"""([^\s"',<>{}$]{4,200})[ \t]*$""", re.MULTILINE)
BLOCK_VALUE = re.compile(r"""["']?:[ \t]*[|>][-+]?[ \t]*\n[ \t]+([^\s"'<>{}$]{4,300})[ \t]*$""", re.MULTILINE)
ENV_VALUE = re.compile(r"""[ \t]+([^\s"'$=<>{}]{4,300})[ \t]*$""", re.MULTILINE)
COMMENT = re.compile(r"//|/\*|^[ \t]*\*|#|--[ \t]|<!--")
CONTINUED = re.compile(
    r"""["'`][ \t]{0,80}(?:[+.&\\]|\.\.)?[ \t]{0,80}(?:\r?\n[ \t]{0,80}(?:[+.&][ \t]{0,80})?)?["'`]([A-Za-z0-9+/=_.~-]{6,200})["'`]"""
)
"""Matches the end of a string literal, up to the next literal of the same concatenation, which is group 1."""
XML_VALUE = re.compile(r"""[ \t]*(?:[\w:-]+="[^"\n]{0,60}"[ \t]*)*>[ \t]*([^\s<>{}$"']{4,200})[ \t]*</""")
XML_ATTRIBUTE_VALUE = re.compile(r"""["'][ \t]+value[ \t]*=[ \t]*["']([^"'\n<>{}$]{4,200})["']""")

PLACEHOLDER = re.compile(
    r"(?:(?:your|my|the|some|insert|enter|put|add|replace|change|dummy|fake|example|sample|placeholder|redacted|mock)"
    r"[-_ ].*|(?:example|dummy|fake|sample|placeholder|redacted)\w*|change[-_]?(?:me|it|this)?|x{3,}.*|\*+|\.{3,}|-+|_+|todo|tbd|none|null|nil|undefined|true|false|yes|no|on|off|"
    r"(?:[a-z]*[-_ .])?(?:passw(?:or)?d|pwd|secret|token|key|auth|string|str|int|bool|value|text|password_hash)s?"
    r"|test(?:ing)?\d*|oauth\d?(?:\.\d)?|[a-z_]+(?:\|[\w:,]+)+|foo|bar|baz|abc|default|string|optional|required|hidden|bearer|basic|n/?a|empty|unset|env|prompt|.)\Z",
    re.IGNORECASE,
)
TEMPLATE = re.compile(
    r"\$\{|\$\(|\{\{|<%|%\(|^\$[A-Za-z_]|^%[sdr]|^\{[\w.!:]*\}$|^<[^>]*>$|^\$[A-Z_]+$|^@@|#\{|^%\w+%$|^\{[A-Za-z_][\w.]*[\[(]|^process\.env|^os\.|^env\."
)
BLOB = re.compile(r"[A-Za-z0-9+/_-]{16,512}={0,2}\Z")
NOT_A_BLOB = re.compile(
    r"sha\d{1,3}[-:=]|^[a-z]+(?:[-_/][a-z0-9]+)*$|^[A-Z]+(?:[-_][A-Z0-9]+)*$|^(?:\w+/)+\w+$|^[A-Za-z]+$", re.ASCII
)
