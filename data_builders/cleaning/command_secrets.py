"""Passwords on command lines and in scripts: options of programs, and text that is piped into a program."""

from __future__ import annotations

from data_builders.cleaning.pattern_groups import Pattern, PatternGroup

_LINE = r"[^\n|;&]{0,200}?"
_VALUE = r"[\"']?([^\s\"'$<>{}|;&`()%-][^\s\"'$<>{}|;&`()]{3,100})"
"""A word of a command that can be a password; a variable or an option cannot."""
_LETTERS = r"[\"']?((?=[\d.:/]*[^\s\d.:/])[^\s\"'$<>{}|;&`()%-][^\s\"'$<>{}|;&`()]{3,100})"
"""A password with letters. Otherwise, the value may be a port."""

COMMANDS = PatternGroup((
    Pattern.of("PASSWORD", "setenv", r"\bsetenv[ \t]+\w*(?:PASSWORD|PASSWD|PASS|PWD|TOKEN|SECRET|API_KEY)[ \t]+[\"']?([^\s\"'$`<{]{4,200})"),
    Pattern.of("PASSWORD", "storepass keypass", r"(?<=\s)-(?:store|key)pass[ \t]+[\"']?([^\s\"'$<{`]{4,100})"),
    Pattern.of("PASSWORD", "curl wget", r"(?:curl|wget)\b[^\n]{0,200}?\s(?:-u|--user)[ =]?[\"']?[\w.@+-]{1,64}:([^\s\"'$<{]{3,100})"),
    Pattern.of("PASSWORD", "sshpass", r"sshpass[ \t]+-p[ \t]*[\"']?([^\s\"'$<{`][^\s\"'$<{]{2,100})"),
    Pattern.of("PASSWORD", "mysql", r"\bmysql(?:dump|admin)?[ \t][^\n|;&]{0,200}?(?<=\s)-p((?=[a-z]*[^a-z\s\"'$<{])[^\s\"'$<{`]{4,100})"),
    Pattern.of("PASSWORD", "login", r"\b(?:docker|podman|skopeo|buildah|registry|az|oc)[ \t]+login\b[^\n|;&]{0,200}?\s(?:-p|--password)[ =][\"']?([^\s\"'$<{`-][^\s\"'$<{]{2,100})"),
    Pattern.of("PASSWORD", "redis-cli", r"\bredis-cli\b[^\n|;&]{0,100}?\s-a[ \t]+[\"']?([^\s\"'$<{`]{3,100})"),
    Pattern.of("PASSWORD", "http~ https~ xhs~", r"(?m)(?:^|[\s`(])(?:https?|xhs?)[ \t]" + _LINE + r"(?<=\s)(?:-a|--auth)[ =][\"']?[\w.@+-]{1,64}:" + _VALUE),
    Pattern.of("PASSWORD", "curl wget", r"\b(?:curl|wget)\b[^\n]{0,200}?\s(?:-U|--proxy-user)[ =]?[\"']?[\w.@+-]{1,64}:" + _VALUE),
    Pattern.of("PASSWORD", "mongo", r"\bmongo(?:sh|dump|restore|export|import|stat|top)?[ \t]" + _LINE + r"(?<=\s)-p[ =]?" + _VALUE),
    Pattern.of("PASSWORD", "cqlsh influx arangosh rabbitmqadmin sqlcmd isql impala-shell beeline ipmitool evil-winrm crackmapexec netexec rdesktop mosquitto_ couchbase-cli bcp~ plink pscp psftp putty",
               r"\b(?:cqlsh|influx|arangosh|rabbitmqadmin|sqlcmd|bcp|isql|impala-shell|beeline|ipmitool|evil-winrm|crackmapexec|netexec|rdesktop|mosquitto_(?:pub|sub)|couchbase-cli|plink|pscp|psftp|putty)(?:\.exe)?[ \t]"
               + _LINE + r"(?<=\s)(?:-p|-P|-pw|-password)[ =]?" + _LETTERS),
    Pattern.of("PASSWORD", "smbclient rpcclient smbmap winexe wmic mount.cifs", r"\b(?:smbclient|rpcclient|smbmap|winexe|wmic|mount\.cifs)\b" + _LINE + r"(?<=\s)(?:-U|--user)[ =]?[\"']?[\w.\\/-]{1,64}%" + _VALUE),
    Pattern.of("PASSWORD", "htpasswd", r"\bhtpasswd(?:[ \t]+-\w+)*[ \t]+-\w*b\w*(?:[ \t]+-\w+)*(?:[ \t]+[^\s-]\S*){1,2}[ \t]+" + _VALUE),
    Pattern.of("PASSWORD", "net~use net~user", r"(?i:\bnet(?:\.exe)?[ \t]+(?:use\b[^\n]{0,200}?/user:\S+[ \t]+|user[ \t]+[\w.-]+[ \t]+))(?!/)" + _VALUE),
    Pattern.of("PASSWORD", "net~use", r"(?i:\bnet(?:\.exe)?[ \t]+use[ \t]+(?:\w:[ \t]+)?\\\\\S+[ \t]+)(?!/)" + _VALUE + r"(?=[ \t]+(?i:/user:))"),
    Pattern.of("PASSWORD", "/p: /pass: /rp", r"(?i:\b(?:x?freerdp|cmdkey|schtasks|mstsc)\b)[^\n|;&]{0,200}?(?<=\s)/(?:p:|pass:|rp[ \t]+)" + _VALUE),
    Pattern.of("PASSWORD", "SSHPASS=", r"\bSSHPASS=" + _VALUE),
    Pattern.of("PASSWORD", "snmp", r"\bsnmp\w+[ \t]" + _LINE + r"(?<=\s)-A[ \t]+" + _VALUE),
    Pattern.of("PASSWORD", "snmp", r"\bsnmp\w+[ \t]" + _LINE + r"(?<=\s)-X[ \t]+" + _VALUE),
    Pattern.of("PASSWORD", "snmp", r"\bsnmp\w+[ \t]" + _LINE + r"(?<=\s)-c[ \t]+(?!public\b|private\b)" + _VALUE),
    Pattern.of("PASSWORD", "pass:", r"-pass(?:in|out)?[ \t]+pass:" + _VALUE),
    Pattern.of("PASSWORD", "zip~", r"\b(?:zip|unzip)[ \t]" + _LINE + r"(?<=\s)-P[ ]?" + _VALUE),
    Pattern.of("PASSWORD", "7z~ 7za~ rar~", r"\b(?:7z[ar]?|rar|unrar)[ \t]" + _LINE + r"(?<=\s)-h?p(?=[A-Za-z]*[^A-Za-z\s])" + _VALUE),
    Pattern.of("PASSWORD", "sqlplus sqlldr expdp impdp rman~", r"\b(?:sqlplus|sqlldr|expdp|impdp|rman)[ \t]+(?:-\w+[ \t]+|target[ \t]+)*[\"']?\w{1,30}/([^\s@/\"'$<{(;&]{3,60})(?=[@\s\"']|$)"),
    Pattern.of("PASSWORD", "chpasswd", r"\becho[ \t]+(?:-\w+[ \t]+)*[\"']?[\w.-]{1,40}:([^\s\"'$|]{4,100})[\"']?[ \t]*\|[ \t]*(?:sudo[ \t]+)?chpasswd"),
    Pattern.of("PASSWORD", "|~sudo~-S --stdin --password-stdin |~kinit", r"\b(?:echo|printf)[ \t]+(?:-\w+[ \t]+)*[\"']?([^\s\"'$|<{`]{4,100})[\"']?[ \t]*\|[ \t]*(?:sudo[ \t]+-S|(?:sudo[ \t]+)?passwd[ \t]+--stdin|kinit|[^\n|]{0,80}--password-stdin)"),
    Pattern.of("PASSWORD", "wpa_passphrase", r"\bwpa_passphrase[ \t]+[\"']?[\w-]{1,32}[\"']?[ \t]+" + _VALUE),
    Pattern.of("PASSWORD", "nmcli", r"\bnmcli\b" + _LINE + r"(?<=\s)(?:password|wifi-sec\.psk)[ \t]+" + _VALUE),
    Pattern.of("PASSWORD", "ldapsearch ldapmodify ldapadd ldapdelete ldapwhoami ldappasswd", r"\bldap(?:search|modify|add|delete|whoami|passwd)\b[^\n|;]{0,200}?(?<=\s)-[ws][ ]?" + _VALUE),
    Pattern.of("PASSWORD", "lftp~ ncftp", r"\b(?:lftp|ncftp\w*)[ \t]" + _LINE + r"(?<=\s)-u[ ]?[\"']?[\w.@-]{1,64}," + _VALUE),
    Pattern.of("PASSWORD", "ncftp", r"\bncftp\w*[ \t]" + _LINE + r"(?<=\s)-p[ ]?" + _VALUE),
    Pattern.of("SECRET", "aws~configure", r"\baws[ \t]+configure[ \t]+set[ \t]+\w*(?:secret|token)\w*[ \t]+([A-Za-z0-9+/=]{16,600})"),
    Pattern.of("PASSWORD", "--password --passphrase --passwd", r"(?<=\s)--[\w-]*(?:password|passphrase|passwd)[ \t]+((?=[^\s\"']*[\d!#@&%])(?=[^\s\"']*[A-Za-z])[^\s\"'$<>{}|;&`()%-][^\s\"'$<>{}|;&`(),]{3,100})(?=\s|$)"),
    Pattern.of("PASSWORD", "psexec PsExec winrs runas", r"(?i:\b(?:psexec(?:64)?|winrs)(?:\.exe)?)[ \t]" + _LINE + r"(?<=\s)-p[: ]" + _VALUE),
))  # fmt: skip
"""Options of programs that are passwords."""
