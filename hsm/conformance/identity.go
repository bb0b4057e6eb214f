package conformance

import (
	"context"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/kmsbroker/kmsbroker/hsm"
)

const basisInfo = "hsm.Info; PKCS#11 2.40, CK_TOKEN_INFO"

func identityChecks() []check {
	return []check{
		{Check{"I-01", "the token opens",
			"The settings, the PIN and the way to the device are right. Every other check rests on this one.",
			"hsm/plugin Opener"}, opens, withoutToken},
		{Check{"I-02", "the device is named",
			"Manufacturer, model, label, firmware and library are told, so that the report says what it is about.",
			basisInfo}, named, withToken},
		{Check{"I-03", "the role is told", "It is known as whom the backend is logged in.",
			"hsm.Role; PKCS#11 2.40, CKU_USER; Thales, CKU_CRYPTO_USER"}, roleTold, withToken},
		{Check{"I-04", "the description is printable and bounded", "It can go into logs, tables and evidence as it is.",
			"hsm.proto, DescribeResponse"}, describedInPrint, withToken},
		{Check{"I-05", "the session limit is sane", "The limit is none, or leaves one session to hold the login and one to work with.",
			"PKCS#11 2.40, CK_TOKEN_INFO ulMaxRwSessionCount; C_CloseSession (the last one logs out)"}, limitsSane, withToken},
		{Check{"I-06", "wrapping algorithms are known, single and strongest first",
			"Whoever picks the first one that both ends accept gets the strongest.", "hsm.Info"}, algorithmsOrdered, withToken},
		{Check{"I-07", "the description stays and is the caller's own",
			"A second call answers the same, whatever a caller did to the first answer.", basisToken}, describedAgain, withToken},
		{Check{"I-08", "the serial is the same in a fresh session",
			"The serial identifies the device, so that it can be selected by it and the evidence belongs to it.",
			"PKCS#11 2.40, CK_TOKEN_INFO serialNumber"}, serialStable, withToken},
		{Check{"I-09", "the PIN is asked for the token that is described",
			"Attempts to log in are counted for the token that counts them too.", "hsm.PINSource"}, askedForItself, withToken},
	}
}

func opens(ctx context.Context, t *trial) error {
	token, err := t.ensure(ctx)
	if err != nil {
		return failedBy(err, "open the token")
	}
	t.remember(ctx, token)
	return nil
}

func named(ctx context.Context, t *trial) error {
	info, err := t.token.Describe(ctx)
	if err != nil {
		return failedBy(err, "describe the token")
	}
	for _, field := range []struct{ name, value string }{
		{"manufacturer", info.Manufacturer}, {"model", info.Model}, {"label", info.Label}, {"library", info.Library},
	} {
		if strings.TrimSpace(field.value) == "" {
			return failed("the %s is empty", field.name)
		}
	}
	if !regexp.MustCompile(`^[0-9]+(\.[0-9]+)+$`).MatchString(info.Firmware) {
		return failed("the firmware is %.40q, not numbers with dots", info.Firmware)
	}
	t.notef("%s %s", info.Manufacturer, info.Model)
	return nil
}

func roleTold(ctx context.Context, t *trial) error {
	info, err := t.describe(ctx)
	if err != nil {
		return err
	}
	if info.Role != hsm.CryptoOfficer && info.Role != hsm.CryptoUser {
		return failed("the role is %.40q", string(info.Role))
	}
	t.notef("%s", info.Role)
	return nil
}

func describedInPrint(ctx context.Context, t *trial) error {
	info, err := t.describe(ctx)
	if err != nil {
		return err
	}
	texts := []string{info.Manufacturer, info.Model, info.Serial, info.Label, info.Firmware, info.Library}
	for _, p := range info.Policies {
		texts = append(texts, p.Name)
	}
	for _, text := range texts {
		const longest = 255
		if len(text) > longest || !isPrintable(text) {
			return failed("%.80q has %d bytes, or characters that cannot be printed", text, len(text))
		}
	}
	return nil
}

func limitsSane(ctx context.Context, t *trial) error {
	info, err := t.describe(ctx)
	if err != nil {
		return err
	}
	const sane = 1 << 20 // more is CK_EFFECTIVELY_INFINITE, taken for a number
	if n := info.MaxSessions; n < 0 || n == 1 || n > sane {
		return failed("the token admits %d sessions", n)
	}
	if info.MaxSessions == 0 {
		t.notef("no limit")
	} else {
		t.notef("%d", info.MaxSessions)
	}
	return nil
}

func algorithmsOrdered(ctx context.Context, t *trial) error {
	info, err := t.describe(ctx)
	if err != nil {
		return err
	}
	if len(info.WrappingAlgorithms) == 0 {
		if info.Role == hsm.CryptoUser {
			return notSupported(nil, "the crypto user cannot try the algorithms")
		}
		return failed("the token declares no wrapping algorithm, so that no key can leave it")
	}
	rest := hsm.WrappingAlgorithms()
	for _, a := range info.WrappingAlgorithms {
		i := slices.Index(rest, a)
		if i < 0 {
			return failed("%v: %.40q is unknown, repeated or out of order", info.WrappingAlgorithms, string(a))
		}
		rest = rest[i+1:]
	}
	return nil
}

func describedAgain(ctx context.Context, t *trial) error {
	describe := func() (*hsm.Info, error) {
		info, err := t.token.Describe(ctx)
		if err != nil {
			return nil, blocked(err, "the token does not describe itself")
		}
		return info, nil
	}
	first, err := describe()
	if err != nil {
		return err
	}
	want := *first
	want.WrappingAlgorithms = slices.Clone(first.WrappingAlgorithms)
	clear(first.WrappingAlgorithms)
	again, err := describe()
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(&want, again) {
		return failed("first %+v, then %+v", want, *again)
	}
	return nil
}

func serialStable(ctx context.Context, t *trial) error {
	before, err := t.describe(ctx)
	if err != nil {
		return err
	}
	if before.Serial == "" {
		return notSupported(nil, "the device tells no serial, so it can be selected by its label only")
	}
	if err := t.reopen(ctx); err != nil {
		return err
	}
	now, err := t.token.Describe(ctx)
	if err != nil {
		return failedBy(err, "describe the token once more")
	}
	if now.Serial != before.Serial {
		return failed("the serial was %s and is %s", before.Serial, now.Serial)
	}
	t.notef("%s", now.Serial)
	return nil
}

func askedForItself(ctx context.Context, t *trial) error {
	if t.config.Asked == nil {
		return notRun("it takes somebody who sees what the PIN is asked for (Config.Asked)")
	}
	info, err := t.token.Describe(ctx)
	if err != nil {
		return blocked(err, "the token does not describe itself")
	}
	asked := t.config.Asked()
	described := hsm.TokenID{Manufacturer: info.Manufacturer, Model: info.Model, Serial: info.Serial}
	if info.Serial == "" {
		described.Serial = asked.Serial // whatever tells a token without one from others
	}
	if asked != described || asked.Serial == "" {
		return failed("the PIN was asked for %q, described is %q", asked.String(), described.String())
	}
	return nil
}
