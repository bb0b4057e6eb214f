package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// LogRepaired is the action of the record that follows a torn line.
const LogRepaired = "audit.repair"

// Keys of Event.Details in a LogRepaired record.
const (
	DetailTornBytes  = "torn_bytes"
	DetailTornSHA256 = "torn_sha256"
)

// tail is the end of a log file.
type tail struct {
	head link
	torn []byte // bytes after the last newline, which a crash left
}

// readTail reads the end of a log of size bytes. A crash can tear no more than
// one batch.
func readTail(file io.ReaderAt, size int64) (tail, error) {
	const window = (maxQueue + 2) * maxLine
	start := max(0, size-window)
	data := make([]byte, size-start)
	if _, err := file.ReadAt(data, start); err != nil && !errors.Is(err, io.EOF) {
		return tail{}, err
	}
	end := bytes.LastIndexByte(data, '\n') + 1
	t := tail{head: origin, torn: data[end:]}
	if end == 0 {
		if start > 0 {
			return tail{}, errors.New("it ends in something that is not an audit log: move the file away and keep it")
		}
		return t, nil
	}
	line := data[:end-1]
	line = line[bytes.LastIndexByte(line, '\n')+1:]
	r, err := decode(line)
	if err != nil {
		return tail{}, fmt.Errorf("its last line %w: move the file away and keep it", err)
	}
	t.head = link{seq: r.Seq - 1}.after(line)
	return t, nil
}

// saveTorn keeps torn bytes for whoever wants to know what was lost.
func saveTorn(dir string, torn []byte) error {
	file, err := os.OpenFile(filepath.Join(dir, TornName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(append(bytes.Clone(torn), '\n'))
	return errors.Join(err, file.Sync(), file.Close(), syncDir(dir))
}

func tornEvent(torn []byte) Event {
	sum := sha256.Sum256(torn)
	return Event{Action: LogRepaired, Outcome: Done, Details: map[string]string{
		DetailTornBytes:  strconv.Itoa(len(torn)),
		DetailTornSHA256: hex.EncodeToString(sum[:]),
	}}
}
