package lunaclient

import (
	"errors"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
	"github.com/kmsbroker/kmsbroker/plugins/internal/chrystoki"
)

func TestChooser(t *testing.T) {
	slot := func(description, label, serial string) pkcs11.Slot {
		return pkcs11.Slot{Description: description, Label: label, Serial: serial}
	}
	const net, ha = "Net Token Slot", "HA Virtual Card Slot"
	virtual := slot(ha, "payments", "1888800001")
	first, second := slot(net, "payments", "888800001"), slot(net, "payments", "888800002")
	other := slot(net, "other", "777")
	group := []chrystoki.HAGroup{{Label: "payments", Serial: "1888800001", Members: []string{"888800001", "888800002"}}}

	for _, test := range []struct {
		name              string
		groups            []chrystoki.HAGroup
		present, matching []pkcs11.Slot
		want              []pkcs11.Slot
		refused           string
	}{
		{name: "alone", present: []pkcs11.Slot{other}, matching: []pkcs11.Slot{other}, want: []pkcs11.Slot{other}},
		{name: "virtual among members", present: []pkcs11.Slot{first, second, virtual},
			matching: []pkcs11.Slot{first, second, virtual}, want: []pkcs11.Slot{virtual}},
		{name: "virtual by the configuration alone", groups: group, present: []pkcs11.Slot{first, slot(net, "payments", "1888800001")},
			matching: []pkcs11.Slot{first, slot(net, "payments", "1888800001")}, want: []pkcs11.Slot{slot(net, "payments", "1888800001")}},
		{name: "member by its serial", present: []pkcs11.Slot{first, second, virtual},
			matching: []pkcs11.Slot{first}, refused: `"1888800001"`},
		{name: "member whose group is not shown", groups: group, present: []pkcs11.Slot{first},
			matching: []pkcs11.Slot{first}, refused: `"payments"`},
		{name: "group of one under the member's serial", groups: []chrystoki.HAGroup{{Label: "payments", Serial: "888800001", Members: []string{"888800001"}}},
			present: []pkcs11.Slot{first, slot(ha, "payments", "888800001")}, matching: []pkcs11.Slot{first, slot(ha, "payments", "888800001")},
			want: []pkcs11.Slot{slot(ha, "payments", "888800001")}},
		{name: "another token beside a group", groups: group, present: []pkcs11.Slot{first, virtual, other},
			matching: []pkcs11.Slot{other}, want: []pkcs11.Slot{other}},
		{name: "two of one label without a group", present: []pkcs11.Slot{first, second},
			matching: []pkcs11.Slot{first, second}, want: []pkcs11.Slot{first, second}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Chooser(test.groups)(test.present, test.matching)
			if test.refused != "" {
				if !errors.Is(err, hsm.Misconfigured) || !strings.Contains(err.Error(), test.refused) {
					t.Errorf("got %v, %v; want a refusal that names %s", got, err, test.refused)
				}
				return
			}
			if err != nil || len(got) != len(test.want) || got[0] != test.want[0] {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}
