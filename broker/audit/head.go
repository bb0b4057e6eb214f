package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Head is the number of a record and the hash of its line. It stands for the
// whole trail up to there.
type Head struct {
	Seq  uint64 // from 1
	Hash string // lower-case hex SHA-256 of the line without its newline
}

// origin comes before the first line.
var origin = Head{Hash: strings.Repeat("0", hex.EncodedLen(sha256.Size))}

// String renders h as "SEQ:HASH".
func (h Head) String() string { return fmt.Sprintf("%d:%s", h.Seq, h.Hash) }

// ParseHead reads what [Head.String] makes.
func ParseHead(s string) (Head, error) {
	number, hash, _ := strings.Cut(s, ":")
	seq, err := strconv.ParseUint(number, 10, 64)
	h := Head{Seq: seq, Hash: strings.ToLower(hash)}
	if sum, hexErr := hex.DecodeString(hash); err != nil || hexErr != nil || seq == 0 || len(sum) != sha256.Size {
		return Head{}, fmt.Errorf("%.100q is not a head of an audit trail: it has the form NUMBER:HASH, with a SHA-256 in hex", s)
	}
	return h, nil
}

// next makes the line that follows h, without its newline.
func (h Head) next(at time.Time, event []byte) []byte { return h.appendNext(nil, at, event) }

// appendNext is next at the end of b.
func (h Head) appendNext(b []byte, at time.Time, event []byte) []byte {
	b = strconv.AppendUint(append(b, `{"seq":`...), h.Seq+1, 10)
	b = at.UTC().AppendFormat(append(b, `,"time":"`...), timeLayout)
	b = append(append(append(b, `","prev":"`...), h.Hash...), `",`...)
	return append(b, event[1:]...)
}

// after is the head when line has been added.
func (h Head) after(line []byte) Head {
	sum := sha256.Sum256(line)
	return Head{Seq: h.Seq + 1, Hash: hex.EncodeToString(sum[:])}
}
