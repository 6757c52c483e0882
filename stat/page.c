/* HTML. See page.h for the contract. */
#define _POSIX_C_SOURCE 200809L
#include "stat/page.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char style[] =
    ":root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--text:#1c2430;--soft:#566173;--line:#dfe3ea;--accepted:#2a9d78;"
    "--deferred:#e0a11b;--rejected:#d1495b;--other:#8a94a6;--delay:#3d6fd1;--slow:#e0a11b33;--throttled:#d1495b2e;--blocked:#d1495b66;"
    "--c1:#d1495b;--c2:#3d6fd1;--c3:#e0a11b;--c4:#8557b8;--c5:#12889c;--c6:#c2621c;--c7:#8a94a6}"
    "@media(prefers-color-scheme:dark){:root{--page:#12161d;--card:#1b212b;--text:#e6eaf1;--soft:#a3aec0;--line:#313a48;--accepted:#3fbf95;"
    "--deferred:#e9b44c;--rejected:#ec6a7c;--other:#7f8a9d;--delay:#7ba4f5;--slow:#e9b44c33;--throttled:#ec6a7c38;--blocked:#ec6a7c70;"
    "--c1:#ec6a7c;--c2:#7ba4f5;--c3:#e9b44c;--c4:#b592e0;--c5:#4fc1d3;--c6:#e8945a;--c7:#7f8a9d}}"
    "*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--text);font:15px/1.5 system-ui,sans-serif;"
    "-webkit-text-size-adjust:100%}main{max-width:72rem;margin:0 auto;padding:1.5rem 1rem 3rem}"
    "h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0 .2rem}h2{font-size:1.15rem;margin:2.2rem 0 .7rem}h3{font-size:1rem;margin:0;"
    "overflow-wrap:anywhere}p{margin:.3rem 0}.soft,small{color:var(--soft)}small{font-size:.85rem}"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:1rem;margin:0 0 .8rem;break-inside:avoid}"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.8rem;margin:1.2rem 0 0;padding:0}"
    ".tiles div{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.7rem .9rem}"
    ".tiles dt{color:var(--soft);font-size:.85rem}.tiles dd{margin:0;font-size:1.45rem;font-weight:600;font-variant-numeric:tabular-nums;"
    "line-height:1.25}.tiles small{display:block;font-weight:400}"
    ".plot{position:relative}svg{display:block;width:100%;overflow:visible}.big svg{height:11rem}.site svg{height:5rem}"
    ".top{display:flex;justify-content:space-between;font-size:.8rem;color:var(--soft);margin-bottom:.2rem}"
    ".days{position:relative;height:1.4rem;font-size:.8rem;color:var(--soft)}.days span{position:absolute;padding-left:.25rem;"
    "border-left:1px solid var(--line);white-space:nowrap;top:0;line-height:1.4rem}"
    ".a{fill:var(--accepted)}.site .a{opacity:.55}.d{fill:var(--deferred)}.r{fill:var(--rejected)}.o{fill:var(--other)}.grid{stroke:var(--line);fill:none}"
    ".p{stroke:var(--delay);fill:none;stroke-width:1.6}.slow{fill:var(--slow)}.throttled{fill:var(--throttled)}.blocked{fill:var(--blocked)}"
    ".key{display:flex;flex-wrap:wrap;gap:.2rem 1rem;list-style:none;margin:.5rem 0 0;padding:0;font-size:.88rem}"
    ".key i{display:inline-block;width:.75rem;height:.75rem;border-radius:.2rem;margin-right:.4rem;vertical-align:-.05rem}"
    ".site{display:grid;grid-template-columns:minmax(11rem,1fr) minmax(0,2.2fr);gap:.4rem 1.4rem}.site dl{display:flex;flex-wrap:wrap;"
    "gap:.1rem 1.1rem;margin:.3rem 0 0;font-size:.88rem}.site dl div{white-space:nowrap}.site dt{display:inline;color:var(--soft)}"
    ".site dd{display:inline;margin:0 0 0 .3rem;font-variant-numeric:tabular-nums}.site .wide{grid-column:1/-1}"
    ".bar{display:flex;height:.7rem;border-radius:.35rem;overflow:hidden;background:var(--line)}.bar i{display:block;height:100%}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem}th{text-align:left;font-weight:600;color:var(--soft);"
    "font-size:.8rem;white-space:nowrap}th,td{padding:.35rem .9rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top}"
    "tr:last-child>td{border-bottom:0}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}"
    ".text{overflow-wrap:anywhere;min-width:12rem;unicode-bidi:isolate}code{font:.88rem/1.45 ui-monospace,monospace}td.t{white-space:nowrap}"
    ".two{display:grid;grid-template-columns:1fr 1fr;gap:0 1rem}"
    "@media(max-width:44rem){main{padding:1rem .7rem 2rem}.site,.two{grid-template-columns:minmax(0,1fr)}.big svg{height:8rem}"
    ".days span{font-size:.7rem}.days span:nth-last-child(odd):not(:only-child){display:none}.card{padding:.8rem}"
    ".fold thead{display:none}.fold tr{display:flex;flex-wrap:wrap;gap:.05rem .9rem;padding:.55rem 0;border-bottom:1px solid var(--line)}"
    ".fold tr:last-child{border-bottom:0}.fold td{border:0;padding:0;text-align:left}.fold .text{flex:1 0 100%}}"
    "@media print{:root{color-scheme:light;--page:#fff;--card:#fff;--text:#000;--soft:#444;--line:#ccc}html{font-size:12px}body{font-size:12px}.tiles{grid-template-columns:repeat(6,1fr)}"
    "main{max-width:none;padding:0 1px}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}.scroll{overflow:visible;break-inside:auto}"
    ".two{display:block}h2,h2+p,thead{break-after:avoid}tr{break-inside:avoid}details::details-content{content-visibility:visible;height:auto}}";

void page_begin(const char *title)
{
	fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
	      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
	      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n<title>",
	    stdout);
	page_text(title);
	printf("</title>\n<style>%s</style>\n</head>\n<body>\n<main>\n", style);
}

void page_end(void)
{
	fputs("</main>\n</body>\n</html>\n", stdout);
}

void page_put(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
}

void page_text(const char *text)
{
	for (size_t n; *text; text += n + 1) {
		n = strcspn(text, "<>&\"'");
		fwrite(text, 1, n, stdout);
		if (!text[n])
			return;
		printf("&#%d;", text[n]);
	}
}

void page_number(uint64_t n)
{
	if (n >= 1000) {
		page_number(n / 1000);
		printf("\xe2\x80\xaf%03u", (unsigned)(n % 1000));
	} else {
		printf("%u", (unsigned)n);
	}
}

void page_octets(uint64_t n)
{
	static const char *const unit[] = { "kB", "MB", "GB", "TB" };
	double value = (double)n / 1000;
	int i;

	for (i = 0; value >= 1000 && i < 3; i++)
		value /= 1000;
	printf(value < 10 ? "%.1f\xc2\xa0%s" : "%.0f\xc2\xa0%s", value, unit[i]);
}

void page_percent(uint64_t part, uint64_t of)
{
	double share = of ? 100 * (double)part / (double)of : 0;

	printf(share > 0 && share < 10 ? "%.1f\xc2\xa0%%" : share > 99 && share < 100 ? "%.1f\xc2\xa0%%" : "%.0f\xc2\xa0%%", share);
}

void page_delay(double ms)
{
	if (ms < 0)
		printf("\xe2\x80\x93");
	else if (ms < 1000)
		printf("%.0f\xc2\xa0ms", ms);
	else
		printf(ms < 10000 ? "%.1f\xc2\xa0s" : "%.0f\xc2\xa0s", ms / 1000);
}

static void put_time(int64_t second, const char *format)
{
	time_t at = (time_t)second;
	char text[64];
	struct tm tm;

	if (gmtime_r(&at, &tm) && strftime(text, sizeof text, format, &tm))
		fputs(text, stdout);
}

void page_date(int64_t second)
{
	put_time(second, "%a %d %b %Y %H:%M");
}

void page_time(int64_t second)
{
	put_time(second, "%a %d %b %H:%M");
}

void page_clock(int64_t second)
{
	put_time(second, "%H:%M");
}

void page_day(int64_t second)
{
	put_time(second, "%a %d %b");
}
