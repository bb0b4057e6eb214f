package pkcs11

import "github.com/kmsbroker/kmsbroker/hsm/cryptoki"

// dataObject is what anybody may make.
func dataObject(label string, more ...any) []cryptoki.Attribute {
	return but(attrs(
		cryptoki.CKA_CLASS, cryptoki.CKO_DATA, cryptoki.CKA_TOKEN, false, cryptoki.CKA_PRIVATE, false,
		cryptoki.CKA_LABEL, label, cryptoki.CKA_VALUE, "some data"), more...)
}

func objects(s *script) {
	session := s.user()
	ro := s.open(0)
	object := s.do("data", c(cryptoki.CreateObject, session).with(dataObject("object"))).Numbers[0]
	s.do("nothing", c(cryptoki.CreateObject, session).with(attrs()))
	s.do("NULL", c(cryptoki.CreateObject, session))
	s.do("value that is NULL", c(cryptoki.CreateObject, session).with(dataObject("x", cryptoki.CKA_APPLICATION, []byte(nil))))
	s.do("value of a wrong length", c(cryptoki.CreateObject, session).with(append(dataObject("x"), cryptoki.BytesAttribute(cryptoki.CKA_MODIFIABLE, []byte{1, 1}))))
	s.do("attribute twice", c(cryptoki.CreateObject, session).with(append(dataObject("x"), attrs(cryptoki.CKA_LABEL, "y")...)))
	s.do("no class", c(cryptoki.CreateObject, session).with(attrs(cryptoki.CKA_TOKEN, false)))
	s.do("unknown attribute", c(cryptoki.CreateObject, session).with(dataObject("x", uint64(0x4242), "x")))
	s.do("read-only attribute", c(cryptoki.CreateObject, session).with(aesTemplate(cryptoki.CKA_LOCAL, true)))
	s.do("token object in a read-only session", c(cryptoki.CreateObject, ro).with(dataObject("x", cryptoki.CKA_TOKEN, true)))
	s.do("session object in a read-only session", c(cryptoki.CreateObject, ro).with(dataObject("of another")))
	s.do("no session", c(cryptoki.CreateObject, noHandle).with(dataObject("x")))
	s.do("AES", c(cryptoki.CreateObject, session).with(aesTemplate()))
	s.do("secret", c(cryptoki.CreateObject, session).with(secretTemplate()))
	s.do("RSA private", c(cryptoki.CreateObject, session).with(s.keys.rsaPrivate()))
	s.do("RSA public", c(cryptoki.CreateObject, session).with(s.keys.rsaPublic()))
	s.do("EC private", c(cryptoki.CreateObject, session).with(s.keys.ecPrivate()))
	s.do("EC public", c(cryptoki.CreateObject, session).with(s.keys.ecPublic()))

	s.do("data", c(cryptoki.GetObjectSize, session, object))
	s.do("no object", c(cryptoki.GetObjectSize, session, noHandle))
	s.do("no session", c(cryptoki.GetObjectSize, noHandle, object))

	copied := s.do("with another label", c(cryptoki.CopyObject, session, object).with(attrs(cryptoki.CKA_LABEL, "copy"))).Numbers[0]
	s.do("of the copy", c(cryptoki.GetAttributeValue, session, copied).with(room(cryptoki.CKA_LABEL, 20, cryptoki.CKA_VALUE, 20)))
	s.do("no object", c(cryptoki.CopyObject, session, noHandle).with(attrs()))
	s.do("no session", c(cryptoki.CopyObject, noHandle, object).with(attrs()))
	s.do("another class", c(cryptoki.CopyObject, session, object).with(attrs(cryptoki.CKA_CLASS, cryptoki.CKO_PUBLIC_KEY)))

	s.do("label", c(cryptoki.SetAttributeValue, session, object).with(attrs(cryptoki.CKA_LABEL, "renamed")))
	s.do("of the renamed", c(cryptoki.GetAttributeValue, session, object).with(room(cryptoki.CKA_LABEL, 20)))
	s.do("class", c(cryptoki.SetAttributeValue, session, object).with(attrs(cryptoki.CKA_CLASS, cryptoki.CKO_PUBLIC_KEY)))
	s.do("nothing", c(cryptoki.SetAttributeValue, session, object).with(attrs()))
	s.do("no object", c(cryptoki.SetAttributeValue, session, noHandle).with(attrs(cryptoki.CKA_LABEL, "x")))
	s.do("no session", c(cryptoki.SetAttributeValue, noHandle, object).with(attrs(cryptoki.CKA_LABEL, "x")))
	fixed := s.create(session, dataObject("fixed", cryptoki.CKA_MODIFIABLE, false))
	s.do("not modifiable", c(cryptoki.SetAttributeValue, session, fixed).with(attrs(cryptoki.CKA_LABEL, "x")))

	s.do("NULL", c(cryptoki.CopyObject, session, object))
	s.do("NULL", c(cryptoki.SetAttributeValue, session, object))
	s.do("copy", c(cryptoki.DestroyObject, session, copied))
	s.do("twice", c(cryptoki.DestroyObject, session, copied))
	s.do("destroyed", c(cryptoki.GetObjectSize, session, copied))
	s.do("no session", c(cryptoki.DestroyObject, noHandle, object))
	kept := s.create(session, dataObject("kept", cryptoki.CKA_TOKEN, true))
	s.do("token object in a read-only session", c(cryptoki.DestroyObject, ro, kept))
	s.do("from another session", c(cryptoki.GetObjectSize, ro, object))
	s.quietly(c(cryptoki.CloseSession, session))
	s.do("of a closed session", c(cryptoki.GetObjectSize, ro, object))
	s.do("of the token", c(cryptoki.GetObjectSize, ro, kept))
	s.do("token object", c(cryptoki.DestroyObject, s.open(cryptoki.CKF_RW_SESSION), kept))
}

// tokenObjects are those that last: made, read in another session, changed, destroyed.
func tokenObjects(s *script) {
	session, ro := s.user(), s.open(0)
	object := s.do("key", c(cryptoki.CreateObject, session).with(attrs(
		cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY, cryptoki.CKA_KEY_TYPE, cryptoki.CKK_AES, cryptoki.CKA_VALUE, aesKey,
		cryptoki.CKA_TOKEN, true, cryptoki.CKA_LABEL, "lasting", cryptoki.CKA_ID, "1"))).Numbers[0]
	lasting := attrs(cryptoki.CKA_LABEL, "lasting")
	s.note("found in another session", s.count(ro, lasting))
	s.do("in another session", c(cryptoki.GetAttributeValue, ro, object).with(room(cryptoki.CKA_ID, 10, cryptoki.CKA_TOKEN, 1, cryptoki.CKA_PRIVATE, 1)))
	s.do("in a read-only session", c(cryptoki.SetAttributeValue, ro, object).with(attrs(cryptoki.CKA_LABEL, "x")))
	s.do("in a read-only session", c(cryptoki.CopyObject, ro, object).with(attrs()))
	s.do("into a read-only session", c(cryptoki.CopyObject, ro, object).with(attrs(cryptoki.CKA_TOKEN, false, cryptoki.CKA_LABEL, "passing")))
	s.do("in a read-only session", c(cryptoki.DestroyObject, ro, object))
	s.do("key", c(cryptoki.SetAttributeValue, session, object).with(attrs(cryptoki.CKA_LABEL, "renamed", cryptoki.CKA_ID, "2")))
	s.note("found by its old name", s.count(ro, lasting))
	s.note("found by its new name", s.count(ro, attrs(cryptoki.CKA_LABEL, "renamed", cryptoki.CKA_ID, "2")))
	s.do("on the token", c(cryptoki.CopyObject, session, object).with(attrs(cryptoki.CKA_ID, "3")))
	s.note("found both", s.count(session, attrs(cryptoki.CKA_LABEL, "renamed")))
	s.do("with it, in another session", c(cryptoki.EncryptInit, ro, object).mech(ecb()))
	s.do("with it", c(cryptoki.Encrypt, ro).data(text).room(64))
	s.quietly(c(cryptoki.CloseSession, session))
	s.do("after its session", c(cryptoki.GetAttributeValue, ro, object).with(room(cryptoki.CKA_ID, 10)))
	session = s.open(cryptoki.CKF_RW_SESSION)
	s.do("key", c(cryptoki.DestroyObject, session, object))
	s.do("destroyed", c(cryptoki.GetAttributeValue, ro, object).with(room(cryptoki.CKA_ID, 10)))
	s.do("destroyed", c(cryptoki.EncryptInit, ro, object).mech(ecb()))
	s.destroy(session, attrs(cryptoki.CKA_LABEL, "renamed"))
	pair := s.do("pair", c(cryptoki.GenerateKeyPair, session).mech(mech(cryptoki.CKM_EC_KEY_PAIR_GEN)).with(
		attrs(cryptoki.CKA_EC_PARAMS, p256, cryptoki.CKA_TOKEN, true, cryptoki.CKA_LABEL, "pair"), attrs(cryptoki.CKA_TOKEN, true, cryptoki.CKA_LABEL, "pair")))
	s.do("with the pair", c(cryptoki.SignInit, session, pair.Numbers[1]).mech(mech(cryptoki.CKM_ECDSA)))
	s.random("with the pair", c(cryptoki.Sign, session).data(text).room(64))
	s.note("found the pair", s.count(session, attrs(cryptoki.CKA_LABEL, "pair")))
	s.destroy(session, attrs(cryptoki.CKA_LABEL, "pair"))
	s.note("left", s.count(session, attrs(cryptoki.CKA_TOKEN, true)))
}

// room makes a template that asks for attributes with room for so many bytes, of pairs
// of a CKA_ and an int; -1 is no room.
func room(pairs ...any) []cryptoki.Attribute {
	template := []cryptoki.Attribute{}
	for i := 0; i < len(pairs); i += 2 {
		a := cryptoki.Attribute{Type: pairs[i].(uint64)}
		if n := pairs[i+1].(int); n >= 0 {
			a.Length, a.Value = uint64(n), make([]byte, n)
		}
		template = append(template, a)
	}
	return template
}

func attributes(s *script) {
	session := s.user()
	get := func(step string, object uint64, pairs ...any) {
		s.do(step, c(cryptoki.GetAttributeValue, session, object).with(room(pairs...)))
	}
	object := s.create(session, dataObject("object"))
	get("lengths", object, cryptoki.CKA_LABEL, -1, cryptoki.CKA_VALUE, -1, cryptoki.CKA_CLASS, -1, cryptoki.CKA_TOKEN, -1)
	get("values", object, cryptoki.CKA_LABEL, 6, cryptoki.CKA_VALUE, 9, cryptoki.CKA_CLASS, 8, cryptoki.CKA_TOKEN, 1)
	get("more room", object, cryptoki.CKA_LABEL, 100, cryptoki.CKA_CLASS, 100)
	get("too little room", object, cryptoki.CKA_LABEL, 3)
	get("too little room for one", object, cryptoki.CKA_VALUE, 20, cryptoki.CKA_LABEL, 3, cryptoki.CKA_TOKEN, 1)
	get("room for nothing", object, cryptoki.CKA_LABEL, 0)
	get("unknown", object, uint64(0x4242), 10)
	get("one unknown", object, cryptoki.CKA_LABEL, 20, uint64(0x4242), 10, cryptoki.CKA_VALUE, 20)
	get("not of data", object, cryptoki.CKA_MODULUS, 300)
	get("of a vendor", object, cryptoki.CKA_VENDOR_DEFINED|1, 10)
	get("none", object)
	s.do("NULL", c(cryptoki.GetAttributeValue, session, object))
	get("number in too little room", object, cryptoki.CKA_CLASS, 4)
	get("numbers in more room", object, cryptoki.CKA_CLASS, 9, cryptoki.CKA_TOKEN, 2)
	get("one twice", object, cryptoki.CKA_LABEL, 20, cryptoki.CKA_LABEL, 20)
	get("no object", noHandle, cryptoki.CKA_LABEL, 20)
	s.do("no session", c(cryptoki.GetAttributeValue, noHandle, object).with(room(cryptoki.CKA_LABEL, 20)))
	empty := s.create(session, dataObject("", cryptoki.CKA_APPLICATION, ""))
	get("empty values", empty, cryptoki.CKA_LABEL, 10, cryptoki.CKA_APPLICATION, -1)

	hidden := s.create(session, aesTemplate(cryptoki.CKA_SENSITIVE, true, cryptoki.CKA_EXTRACTABLE, false))
	get("sensitive", hidden, cryptoki.CKA_VALUE, 100)
	get("sensitive, its length", hidden, cryptoki.CKA_VALUE, -1)
	get("sensitive among others", hidden, cryptoki.CKA_LABEL, 10, cryptoki.CKA_VALUE, 100, cryptoki.CKA_KEY_TYPE, 8)
	get("sensitive and too little room", hidden, cryptoki.CKA_VALUE, 100, cryptoki.CKA_LABEL, 1, cryptoki.CKA_KEY_TYPE, 8)
	get("of a key", hidden, cryptoki.CKA_SENSITIVE, 1, cryptoki.CKA_EXTRACTABLE, 1, cryptoki.CKA_ALWAYS_SENSITIVE, 1, cryptoki.CKA_NEVER_EXTRACTABLE, 1,
		cryptoki.CKA_LOCAL, 1, cryptoki.CKA_KEY_GEN_MECHANISM, 8, cryptoki.CKA_VALUE_LEN, 8, cryptoki.CKA_CHECK_VALUE, 3, cryptoki.CKA_START_DATE, 8,
		cryptoki.CKA_ID, 10, cryptoki.CKA_ENCRYPT, 1, cryptoki.CKA_DECRYPT, 1, cryptoki.CKA_WRAP, 1, cryptoki.CKA_MODIFIABLE, 1, cryptoki.CKA_PRIVATE, 1)
	get("open", s.create(session, aesTemplate(cryptoki.CKA_SENSITIVE, false, cryptoki.CKA_EXTRACTABLE, true)), cryptoki.CKA_VALUE, 32)
	s.do("sensitive for ever", c(cryptoki.SetAttributeValue, session, hidden).with(attrs(cryptoki.CKA_SENSITIVE, false)))
	s.do("never extractable", c(cryptoki.SetAttributeValue, session, hidden).with(attrs(cryptoki.CKA_EXTRACTABLE, true)))

	public := s.create(session, s.keys.rsaPublic())
	get("RSA public", public, cryptoki.CKA_MODULUS, 256, cryptoki.CKA_PUBLIC_EXPONENT, 3, cryptoki.CKA_MODULUS_BITS, 8, cryptoki.CKA_PUBLIC_KEY_INFO, 400)
	private := s.create(session, s.keys.rsaPrivate(cryptoki.CKA_SENSITIVE, true))
	get("RSA private", private, cryptoki.CKA_MODULUS, 256, cryptoki.CKA_PRIVATE_EXPONENT, 256, cryptoki.CKA_PRIME_1, -1, cryptoki.CKA_PUBLIC_EXPONENT, 3)
	get("EC public", s.create(session, s.keys.ecPublic()), cryptoki.CKA_EC_PARAMS, 10, cryptoki.CKA_EC_POINT, 67)
	get("allowed mechanisms", s.create(session, aesTemplate(cryptoki.CKA_ALLOWED_MECHANISMS, cryptoki.Ulong(cryptoki.CKM_AES_ECB))),
		cryptoki.CKA_ALLOWED_MECHANISMS, 64)
	dated := aesTemplate(cryptoki.CKA_START_DATE, "20260101", cryptoki.CKA_END_DATE, "20270101")
	get("dates", s.create(session, dated), cryptoki.CKA_START_DATE, 8, cryptoki.CKA_END_DATE, 8)
	array := s.do("with a template in it", c(cryptoki.CreateObject, session).with(append(s.keys.rsaPrivate(),
		nested(attrs(cryptoki.CKA_LABEL, "inner", cryptoki.CKA_EXTRACTABLE, false))))).Numbers[0]
	get("template, its length", array, cryptoki.CKA_UNWRAP_TEMPLATE, -1)
	s.do("template", c(cryptoki.GetAttributeValue, session, array).with([]cryptoki.Attribute{nested(room(cryptoki.CKA_EXTRACTABLE, 1, cryptoki.CKA_LABEL, 10))}))
	s.do("template, too little room", c(cryptoki.GetAttributeValue, session, array).with([]cryptoki.Attribute{nested(room(cryptoki.CKA_LABEL, 10))}))
	s.do("template, too little room in it", c(cryptoki.GetAttributeValue, session, array).with([]cryptoki.Attribute{nested(room(cryptoki.CKA_EXTRACTABLE, 1, cryptoki.CKA_LABEL, 1))}))
}

// nested is an attribute that is a template.
func nested(template []cryptoki.Attribute) cryptoki.Attribute {
	return cryptoki.Attribute{Type: cryptoki.CKA_UNWRAP_TEMPLATE, Length: uint64(len(template)) * cryptoki.AttributeSize, Nested: template}
}

func privateObjects(s *script) {
	session := s.open(cryptoki.CKF_RW_SESSION)
	s.do("private, by nobody", c(cryptoki.CreateObject, session).with(aesTemplate(cryptoki.CKA_PRIVATE, true)))
	s.do("public, by nobody", c(cryptoki.CreateObject, session).with(s.keys.rsaPublic(cryptoki.CKA_PRIVATE, false)))
	s.quietly(c(cryptoki.Login, session, cryptoki.CKU_USER).data(s.pin))
	token := s.create(session, aesTemplate(cryptoki.CKA_PRIVATE, true, cryptoki.CKA_TOKEN, true, cryptoki.CKA_LABEL, "private"))
	passing := s.create(session, aesTemplate(cryptoki.CKA_PRIVATE, true))
	s.note("found by the user", s.count(session, attrs(cryptoki.CKA_LABEL, "private")))
	s.quietly(c(cryptoki.Logout, session))
	s.note("found by nobody", s.count(session, attrs(cryptoki.CKA_LABEL, "private")))
	s.do("token object, by nobody", c(cryptoki.GetAttributeValue, session, token).with(room(cryptoki.CKA_LABEL, 10)))
	s.do("session object, by nobody", c(cryptoki.GetAttributeValue, session, passing).with(room(cryptoki.CKA_LABEL, 10)))
	s.do("by nobody", c(cryptoki.EncryptInit, session, token).mech(ecb()))
	s.do("by nobody", c(cryptoki.DestroyObject, session, token))
	s.do("by nobody", c(cryptoki.GenerateKey, session).mech(&cryptoki.Mechanism{Type: cryptoki.CKM_AES_KEY_GEN}).with(attrs(
		cryptoki.CKA_VALUE_LEN, uint64(32), cryptoki.CKA_PRIVATE, true, cryptoki.CKA_TOKEN, false)))
	s.quietly(c(cryptoki.Login, session, cryptoki.CKU_USER).data(s.pin))
	s.do("handle of before", c(cryptoki.GetAttributeValue, session, token).with(room(cryptoki.CKA_LABEL, 10)))
	s.do("session object of before", c(cryptoki.GetAttributeValue, session, passing).with(room(cryptoki.CKA_LABEL, 10)))
	s.note("found again", s.count(session, attrs(cryptoki.CKA_LABEL, "private")))
	s.destroy(session, attrs(cryptoki.CKA_LABEL, "private"))
}

// find finds the handles of objects.
func (s *script) find(session uint64, template []cryptoki.Attribute) []uint64 {
	s.quietly(c(cryptoki.FindObjectsInit, session).with(template))
	found := s.quietly(c(cryptoki.FindObjects, session).room(100))
	s.quietly(c(cryptoki.FindObjectsFinal, session))
	return found.List
}

func (s *script) count(session uint64, template []cryptoki.Attribute) string {
	return describeList(&cryptoki.Answer{List: append([]uint64{}, s.find(session, template)...)})
}

// destroy leaves nothing on the token for other chapters to find.
func (s *script) destroy(session uint64, template []cryptoki.Attribute) {
	for _, object := range s.find(session, template) {
		s.quietly(c(cryptoki.DestroyObject, session, object))
	}
}

func find(s *script) {
	session, other := s.user(), s.open(0)
	for range 3 {
		s.create(session, dataObject("three"))
	}
	s.create(session, dataObject("kept", cryptoki.CKA_TOKEN, true))
	three := attrs(cryptoki.CKA_LABEL, "three")
	s.do("not begun", c(cryptoki.FindObjects, session).room(10))
	s.do("not begun", c(cryptoki.FindObjectsFinal, session))
	s.do("three", c(cryptoki.FindObjectsInit, session).with(three))
	s.do("begun twice", c(cryptoki.FindObjectsInit, session).with(three))
	s.do("two of three", c(cryptoki.FindObjects, session).room(2))
	s.do("the third", c(cryptoki.FindObjects, session).room(2))
	s.do("no more", c(cryptoki.FindObjects, session).room(2))
	s.do("begun", c(cryptoki.FindObjectsFinal, session))
	s.do("ended", c(cryptoki.FindObjects, session).room(2))
	s.note("in another session", s.count(other, three))
	s.note("all", s.count(session, attrs()))
	s.note("none", s.count(session, attrs(cryptoki.CKA_LABEL, "no such")))
	s.note("by class and value", s.count(session, attrs(cryptoki.CKA_CLASS, cryptoki.CKO_DATA, cryptoki.CKA_VALUE, "some data")))
	s.note("on the token", s.count(session, attrs(cryptoki.CKA_TOKEN, true)))
	s.note("unknown attribute", s.count(session, attrs(uint64(0x4242), "x")))
	s.do("NULL", c(cryptoki.FindObjectsInit, session))
	s.do("of everything", c(cryptoki.FindObjects, session).room(100))
	s.quietly(c(cryptoki.FindObjectsFinal, session))
	s.do("value of a wrong length", c(cryptoki.FindObjectsInit, session).with([]cryptoki.Attribute{cryptoki.BytesAttribute(cryptoki.CKA_TOKEN, []byte{1, 1})}))
	s.quietly(c(cryptoki.FindObjectsFinal, session))
	s.do("no session", c(cryptoki.FindObjectsInit, noHandle).with(three))
	s.do("no session", c(cryptoki.FindObjects, noHandle).room(1))
	s.do("no session", c(cryptoki.FindObjectsFinal, noHandle))
	s.do("for no room", c(cryptoki.FindObjectsInit, session).with(three))
	s.do("no room", c(cryptoki.FindObjects, session).room(0))
	s.do("beside a search", c(cryptoki.DigestInit, session).mech(&cryptoki.Mechanism{Type: cryptoki.CKM_SHA256}))
	s.quietly(c(cryptoki.FindObjectsFinal, session))
	s.destroy(session, attrs(cryptoki.CKA_LABEL, "kept"))
}
