package emulator

import (
	"unicode/utf8"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// text returns a parameter of no more than most characters.
func (c *call) text(name string, most int) (string, error) {
	text := c.params[name]
	if utf8.RuneCountInString(text) > most {
		return "", wire.InvalidParameter(name)
	}
	return text, nil
}
