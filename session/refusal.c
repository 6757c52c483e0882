/* Refusals by the server. See refusal.h for the contract; the comments here say why. */
#include "session/refusal.h"
#include "io/rulefiles.h"
#include "session/observe.h"
#include "session/record.h"
#include "session/talk.h"

#include <string.h>

void refusal_prepare(struct session *s)
{
	static struct refusal refusal;

	s->refusal = &refusal;
}

/* REPLY_STAGES_END: what it answers has nothing to do with delivery. */
static enum reply_stage stage_of(const struct dialogue_reply *r)
{
	switch (r->verb) {
	case SMTP_GREETING:
		return REPLY_AT_BANNER;
	case SMTP_EHLO:
	case SMTP_LHLO:
	case SMTP_HELO:
		return REPLY_AT_EHLO;
	case SMTP_STARTTLS:
		return REPLY_AT_TLS;
	case SMTP_MAIL:
		return REPLY_AT_MAIL;
	case SMTP_RCPT:
		return REPLY_AT_RCPT;
	case SMTP_DATA:
		return REPLY_AT_DATA;
	case SMTP_BDAT:
	case SMTP_CONTENT:
		return REPLY_AT_DOT;
	default:
		return REPLY_STAGES_END;
	}
}

/* Where no listener has read the rules, the first refusal does: most sessions have none. */
static const struct replyrules *rules_of(struct session *s)
{
	char why[400];

	if (!s->refusal->looked && !rulefiles_current() && !rulefiles_load(s->o->reply_rules, s->o->reply_rules_count, why, sizeof why))
		record_error(s, why);
	s->refusal->looked = true;
	return rulefiles_current();
}

static void classify(struct session *s, const struct dialogue_reply *r, const struct reply_line *line, enum reply_stage stage)
{
	struct refusal *refusal = s->refusal;
	const struct replyrules *rules = rules_of(s);
	struct replyrule rule;

	refusal->stage = stage;
	refusal->code = (uint16_t)r->line.code;
	refusal->text_len = (unsigned char)dialogue_clip(r->line.text, r->line.text_len);
	memcpy(refusal->text, r->line.text, refusal->text_len);
	smtp_enhanced(r->line.text, r->line.text_len, refusal->enhanced);
	if (rules && replyrules_match(rules, *s->observe.site ? s->observe.site : NULL, stage, line, &rule)) {
		refusal->class = rule.class;
		refusal->scope = rule.scope;
		return;
	}
	refusal->class = replyclass_of(stage, r->line.code, refusal->enhanced, line);
	refusal->scope = replyclass_scope(refusal->class);
}

void refusal_passed_on(struct session *s, enum smtp_verb verb)
{
	dialogue_judge(&s->dialogue, verb, DIALOGUE_BY_UPSTREAM, s->refusal->class, s->refusal->scope);
}

void refusal_note(struct session *s, const struct dialogue_reply *r)
{
	enum reply_stage stage = stage_of(r);
	struct reply_line line = { 0 };

	if (r->line.code < 400 || stage == REPLY_STAGES_END)
		return;
	talk_gathered(s, &line);
	replyclass_add(&line, r->line.code, r->line.text, r->line.text_len);
	classify(s, r, &line, stage);
	observe_refusal(s);
	if (stage == REPLY_AT_EHLO || stage == REPLY_AT_TLS)
		record_refusal(s);
	else if (stage != REPLY_AT_BANNER && !(r->hidden && r->verb == SMTP_MAIL))
		refusal_passed_on(s, r->verb);
}

void refusal_note_early(struct session *s, const struct dialogue_reply *r)
{
	struct reply_line line = { 0 };

	if (r->line.code < 400)
		return;
	replyclass_add(&line, r->line.code, r->line.text, r->line.text_len);
	classify(s, r, &line, REPLY_AT_DOT);
	observe_refusal(s);
	s->refusal->early_in = s->dialogue.transactions;
}

void refusal_early_decided(struct session *s)
{
	if (s->refusal->early_in == s->dialogue.transactions)
		refusal_passed_on(s, SMTP_DATA);
}
