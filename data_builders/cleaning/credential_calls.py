"""Passwords that are arguments of calls: logins, connections, key stores, and credentials that are encoded."""

from __future__ import annotations

from data_builders.cleaning.pattern_groups import Pattern, PatternGroup

_TEXT = r"[bru]?[\"'][^\"'\n]{1,80}[\"']"
_WORD = r"[bru]?[\"']((?![\w.-]*\.(?:com|org|net|de|txt|py|js|json|sql)\b)[^\s\"'${<%/:(){}\[\]]{4,100})[\"']"
"""A literal that can be a password."""
_MIXED = (
    r"[bru]?[\"']((?=[^\"'\n]*\d)(?=[^\"'\n]*[A-Za-z])(?![a-z]+(?:[-_.][a-z0-9]+)*[-_.]?\d{0,4}[\"'])(?![A-Za-z]+\d{1,2}[\"'])"
    r"[^\s\"'${<%/(){}\[\]]{6,100})[\"']"
)
"""A literal with digits and letters that is not a name with a number, such as `db-main-01`."""

CALLS = PatternGroup((
    Pattern.of("PASSWORD", "strcpy strncpy", r"\bstrn?cpy\([ \t]*\w*(?i:password|passwd|pwd)\w*,[ \t]*\"([^\"\s%]{4,100})\""),
    Pattern.of("PASSWORD", "ConvertTo-SecureString", r"ConvertTo-SecureString[ \t]+(?:-String[ \t]+)?[\"']([^\"'$\s]{4,100})[\"']"),
    Pattern.of("PASSWORD", "NetworkCredential( Auth( auth=( UsernamePassword",
             r"(?:NetworkCredential|[Bb]asic_?Auth|\bauth=|UsernamePassword\w{1,30})\([ ]?[\"'][^\"'\n]{1,80}[\"'],[ ]?[\"']([^\s\"'${<%]{4,100})[\"']"),
    Pattern.of("PASSWORD", "getConnection(", r"getConnection\((?:[^()\n\"',]{1,80}|\"[^\"\n]{1,200}\"),[ ]?\"[^\"\n]{0,80}\",[ ]?\"([^\s\"${<%]{4,100})\""),
    Pattern.of("PASSWORD", ".login( .logIn( .auth( :auth( .authenticate( signIn( signin( sign_in( log_in(",
               r"(?:[.:](?:login|logIn|log_in|auth|authenticate)|sign_?[iI]n)\([ ]?" + _TEXT + r",[ ]?" + _MIXED),
    Pattern.of("PASSWORD", "PlainAuth(", r"PlainAuth\([\"'][^\"'\n]{0,80}[\"'],[ ]?" + _TEXT + r",[ ]?" + _WORD),
    Pattern.of("PASSWORD", "CRAMMD5Auth( simple_bind( simple_bind_s( ldap_bind( setBasicAuth( basic_auth( basicAuth( BasicAuth( HTTPDigestAuth( set_credentials(",
               r"(?:CRAMMD5Auth|simple_bind(?:_s)?|[sS]etBasicAuth|set_credentials|[bB]asic_?[aA]uth|HTTPDigestAuth)\([ ]?(?:[\w.]{1,40},[ ]?)?" + _TEXT + r",[ ]?(?:Some\()?" + _WORD),
    Pattern.of("PASSWORD", "PDO( mysqli mysql_connect( pg_connect( .connect( connect( createConnection( FTP( IMAP( ldap_bind( ftp_login( ssh2_auth_password( Net::SSH.start( Mysql2",
               r"(?:\bPDO|mysqli(?:_connect)?|mysql_connect|ldap_bind|ftp_login|ssh2_auth_password|SSH\.start|FTP(?:_TLS)?)\([ ]?(?:[^(),\n\"']{1,60}|" + _TEXT + r"),[ ]?" + _TEXT + r",[ ]?" + _WORD),
    Pattern.of("PASSWORD", "connect( Connect( open_connection( createConnection(",
               r"(?:[cC]onnect|open_connection|createConnection)\((?:[ ]?(?:" + _TEXT + r"|[\w.]{1,40}),){1,4}(?<=[\"'],)[ ]?" + _MIXED + r"[ ]?[,)]"),
    Pattern.of("PASSWORD", "btoa( b64encode( base64_encode( Buffer.from( encodeToString( Base64.", 
               r"(?:btoa|b64encode|base64_encode|Buffer\.from|encodeToString|Base64\.\w{1,30})\([ ]?[bru]?[\"'][\w.@+-]{1,64}:(?!\w{1,6}/)([^\s\"'${<%:/]{4,100})[\"']"),
    Pattern.of("PASSWORD", ".toCharArray()",
               r"(?:\.load|\.store|getKey|setKeyEntry|PasswordProtection|PBEKeySpec|PasswordAuthentication|\.init|setPassword|unlock)\([^;\n]{0,120}?\"([^\"\s]{4,100})\"\.toCharArray\(\)"),
    Pattern.of("PASSWORD", "assword:", r"(?i:assw(?:or)?d|passphrase|kennwort)[^\n]{0,60}\n?[^\n]{0,40}?\bsend(?:_user|line)?[ \t(]+(?:--[ \t]+)?[bru]?[\"']([^\"'\n\\$\[{]{4,100})(?:\\[rn])*[\"']"),
    Pattern.of("PASSWORD", "-token -password -passwd -secret -key --token --secret", r"(?i:option|argument)\([ \t]*(?:[\"']-\w[\"'],[ ]?)?[\"']--[\w-]*(?i:password|passwd|passphrase|token|secret|api-?key)[\"'][^\n)]{0,120}?\bdefault[ ]?=[ ]?[\"']((?=[A-Za-z_-]*\d)[^\"'\s${<%]{6,100})[\"']"),
    Pattern.of("PASSWORD", "--password --passwd --pass --token --secret -password",
               r"\[[^\]\n]{0,200}?[\"']--?[\w-]*(?i:password|passwd|passphrase|pass|token|secret|api-?key)[\"'],[ ]?[\"']([^\s\"'${<%-][^\s\"'${<%]{3,100})[\"']"),
))  # fmt: skip
"""Calls of libraries that take a name and a password."""
