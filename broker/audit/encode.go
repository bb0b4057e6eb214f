package audit

import (
	"maps"
	"slices"
	"strconv"
)

// usualEvent is how many bytes most events have.
const usualEvent = 512

// appendEvent writes an event as encoding/json does, which reads it again. There is
// one for each call of an application, and this takes a third of the time.
func appendEvent(b []byte, e *Event) []byte {
	b = appendString(append(b, `{"action":`...), e.Action)
	b = appendString(append(b, `,"outcome":`...), string(e.Outcome))
	if e.Caller != nil {
		b = appendCaller(append(b, `,"caller":`...), e.Caller)
	}
	b = appendField(b, `,"door":`, e.Door)
	b = appendField(b, `,"key":`, e.Key)
	b = appendField(b, `,"key_id":`, e.KeyID)
	b = appendField(b, `,"backend":`, e.Backend)
	b = appendField(b, `,"request_id":`, e.RequestID)
	b = appendField(b, `,"reason":`, e.Reason)
	if len(e.Details) > 0 {
		b = append(b, `,"details":`...)
		separator := byte('{')
		for _, name := range slices.Sorted(maps.Keys(e.Details)) {
			b = appendString(append(b, separator), name)
			b = appendString(append(b, ':'), bounded(e.Details[name]))
			separator = ','
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

func appendCaller(b []byte, c *Caller) []byte {
	if c.App != "" {
		return append(appendString(append(b, `{"app":`...), c.App), '}')
	}
	b = strconv.AppendUint(append(b, `{"uid":`...), uint64(c.UID), 10)
	b = strconv.AppendUint(append(b, `,"gid":`...), uint64(c.GID), 10)
	b = strconv.AppendInt(append(b, `,"pid":`...), int64(c.PID), 10)
	return append(appendField(b, `,"unit":`, c.Unit), '}')
}

// appendField writes what there is.
func appendField(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(append(b, name...), value)
}

func appendString(b []byte, s string) []byte {
	if !isPlain(s) {
		if quoted, err := marshal(s); err == nil { // there is no string that fails
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// isPlain reports whether s is of printable ASCII that JSON does not escape.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
