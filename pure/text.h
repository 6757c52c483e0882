/* Numbers in string literals: "can be given " TEXT_OF(OPTIONS_PROXY_MAX) " times". The constant must be a plain number, not an
 * expression.
 */
#ifndef TEXT_H
#define TEXT_H

#define TEXT_OF(constant) TEXT_OF_NUMBER(constant)
#define TEXT_OF_NUMBER(number) #number

#endif
